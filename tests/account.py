"""An account on a local cloud in this process, whose machines do not boot; and the product's own way into it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagepipe.cleanup.undoers import Undoers
from imagepipe.clock import Deadline, SystemClock
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.cloud.s3 import S3
from imagepipe.cloud.session import Access, Session
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import AnyEvent, Events
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Journal, RunRecord
from imagepipe.engine.stage import Context
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.masking import Masker
from tests.local.aws.harness import KEY_ID, SECRET, Cloud


@dataclass
class Account:
    """An account of a local cloud, with the objects that stages work with."""

    cloud: Cloud
    folder: Path

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        access = Access(
            endpoint_url=self.cloud.endpoint, region="us-east-1", access_key_id=KEY_ID, secret_access_key=SECRET
        )
        self.regions = Regions(Session(access), self.clock)
        self.cancel = Cancel(self.clock)
        record = RunRecord("r1", "2026-11-23T00:00:00Z", ("web",), {}, {})
        self.journal = Journal.create(FileStore(self.folder), record, self.clock)
        self.seen: list[AnyEvent] = []
        self.events = Events("r1", self.clock, Masker(), [self.seen.append])
        self.holdings = Undoers(self.regions, self.clock, shown_seconds=2)

    @property
    def ec2(self) -> Ec2:
        return self.regions["us-east-1"]

    @property
    def s3(self) -> S3:
        return self.ec2.s3

    def context(self, **outputs: object) -> Context:
        """A stage's context, with these outputs of other stages."""
        return Context("stage", outputs, self.journal, self.events, self.cancel, self.clock)

    def fault(self, effect: str, action: str, **more: object) -> None:
        """From here on the cloud has this fault, once."""
        values = {"effect": effect, "action": action, "times": 1, **more}
        self.cloud.gateway.backend.faults.add(Fault(**values))  # type: ignore[arg-type]

    def deadline(self, seconds: float = 20) -> Deadline:
        return Deadline.after(seconds, self.clock)
