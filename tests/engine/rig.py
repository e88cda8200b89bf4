"""Stages and a run around them, for tests of the machinery: no cloud anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagepipe.clock import SystemClock
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import AnyEvent, Events
from imagepipe.engine.executor import STOP_SECONDS, Outcome, RunServices, execute
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.graph import Graph
from imagepipe.engine.groups import Groups
from imagepipe.engine.journal import Claim, Journal, Lifetime, RunRecord
from imagepipe.engine.stage import Context, Ref, Stage
from imagepipe.masking import Masker

RUN = RunRecord("r1", "2026-11-23T00:00:00Z", ("web",), {"id": "r1"}, {})


@dataclass(frozen=True)
class Do(Stage[Any]):
    """Does what it is told, after its inputs."""

    what: Callable[[Context], Any]
    needs: tuple[Ref[Any], ...] = ()

    def run(self, ctx: Context) -> Any:
        return self.what(ctx)


@dataclass
class Rig:
    """A run in a folder."""

    folder: Path
    seen: list[AnyEvent] = field(default_factory=list)
    released: list[str] = field(default_factory=list)
    fails: set[str] = field(default_factory=set)
    """Kinds whose undo fails."""
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.clock = SystemClock()
        self.cancel = Cancel(self.clock)
        self.graph = Graph()
        self.journal = Journal.create(FileStore(self.folder), RUN, self.clock)
        self.events = Events(RUN.id, self.clock, Masker(self.secrets), [self.seen.append])

    def add(self, name: str, what: Callable[[Context], Any] = lambda ctx: None, *needs: Ref[Any]) -> Ref[Any]:
        return self.graph.add(name, Do(what, needs))

    def undo_one(self, claim: Claim) -> bool:
        if claim.kind in self.fails:
            raise RuntimeError(f"no way to delete a {claim.kind}")
        self.released.append(claim.kind)
        return True

    def execute(
        self,
        *,
        keep_on_failure: bool = False,
        groups: Groups | None = None,
        stop_seconds: float = STOP_SECONDS,
    ) -> Outcome:
        kinds = ("image", "instance", "key", "group", "snapshots")
        undoers = dict.fromkeys(kinds, self.undo_one)
        return execute(
            self.graph,
            RunServices(self.journal, self.events, self.cancel, self.clock, undoers),
            keep_on_failure=keep_on_failure,
            groups=groups,
            stop_seconds=stop_seconds,
        )


def holding(kind: str, lifetime: Lifetime = Lifetime.RUN) -> Callable[[Context], str]:
    """A stage's work that claims a thing."""

    def what(ctx: Context) -> str:
        claim = ctx.intend(kind, "us-east-1", lifetime=lifetime)
        ctx.bind(claim, f"{kind}-1")
        return f"{kind}-1"

    return what


def failing(ctx: Context) -> None:
    raise RuntimeError("as told")


def meeting(barrier: threading.Barrier) -> Callable[[Context], None]:
    """A stage's work that ends only if others run at the same time."""

    def what(ctx: Context) -> None:
        barrier.wait(60)

    return what
