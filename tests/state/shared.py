"""Shared state in the S3 of a local cloud in this process, as a machine sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

from imagepipe.cloud.session import Access, Session
from imagepipe.engine.journal import RunRecord
from imagepipe.state.bucket import StateBucket
from imagepipe.state.bucket_store import BucketStore
from imagepipe.state.location import StateLocation
from tests.local.aws.harness import KEY_ID, SECRET, Cloud

BUCKET = "our-state"
URL = f"s3://{BUCKET}/team"
RUN = RunRecord("7f3a", "2026-11-23T03:00:00Z", ("web",), {"id": "7f3a", "timestamp": "x"}, {"local": "/store"})


@dataclass
class SetClock:
    """A clock that a test sets. Its waits end only by their event."""

    seconds: float = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 23, 3, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: Event, seconds: float) -> bool:
        return event.wait(60)


def session(cloud: Cloud, region: str = "us-east-1") -> Session:
    access = Access(endpoint_url=cloud.endpoint, region=region, access_key_id=KEY_ID, secret_access_key=SECRET)
    return Session(access)


@dataclass
class Machine:
    """A machine with a clock and a disk of its own, which uses the shared state."""

    cloud: Cloud
    disk: Path
    clock: SetClock = field(default_factory=SetClock)
    lease_seconds: float = 30.0

    def __post_init__(self) -> None:
        self.bucket = StateBucket(session(self.cloud), StateLocation.parse(URL), self.clock)
        self.store = BucketStore(self.bucket, self.disk, self.clock, lease_seconds=self.lease_seconds)

    def change_requests(self, operation: str, change: Callable[[Any], None]) -> None:
        """Change each request of an operation before it is signed."""

        def handler(request: Any, **_: Any) -> None:
            change(request)

        self.bucket._client.meta.events.register_first(f"before-sign.s3.{operation}", handler)


def make_bucket(cloud: Cloud, region: str = "us-east-1", name: str = BUCKET) -> None:
    place = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    cloud.client("s3", region).create_bucket(Bucket=name, **place)
