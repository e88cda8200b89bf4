"""A stage is one unit of work whose fields are its inputs. A Context gives it the engine's services while it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from imagepipe.clock import Clock, Deadline
from imagepipe.dataclass import dataclass
from imagepipe.engine import events
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import Events
from imagepipe.engine.journal import Claim, Journal, Lifetime

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SHOWN_PAUSES = (0.25, 0.75)
"""Pauses in seconds before a cloud is asked again for a resource that a process created just before it died."""


@dataclass(frozen=True, slots=True)
class Ref(Generic[T_co]):
    """A reference to the output of a stage. As a field of another stage it is an edge of the graph."""

    stage: str


@dataclass(frozen=True, slots=True)
class After:
    """A reference that only sets the order: the stage must have ended, but it may have failed."""

    stage: str


class Stage(ABC, Generic[T_co]):
    """A frozen dataclass whose fields are plain values, tools, or references. Its output is a frozen value."""

    @abstractmethod
    def run(self, ctx: Context) -> T_co:
        """Do the work and return the output. Raises ImagepipeError; must end soon after the run is cancelled."""

    def title(self) -> str:
        """Return the stage's name in logs."""
        return type(self).__name__

    def summary(self, output: Any) -> str:
        """Return the text that a log prints when the stage is done; empty for none."""
        return ""

    def files(self) -> tuple[Path, ...]:
        """Return the local files and folders that the stage reads; they are part of its fingerprint."""
        return ()

    def is_repeatable(self) -> bool:
        """Return whether the stage can run again after an interruption, because its claims find what it created."""
        return True

    def must_exist(self) -> tuple[Ref[Any], ...]:
        """Return the inputs whose resources must still exist when the stage runs; other inputs only set the order."""
        return self.inputs()

    def inputs(self) -> tuple[Ref[Any], ...]:
        """Return every Ref among the fields, in tuples and mappings too: the edges into this stage."""
        return tuple(ref for ref in self._references() if isinstance(ref, Ref))

    def ordering(self) -> tuple[After, ...]:
        """Return every After among the fields: edges that only set the order."""
        return tuple(ref for ref in self._references() if isinstance(ref, After))

    def stops_others(self, error: Exception) -> bool:
        """Return whether this failure of the stage stops the stages that do not take its output."""
        return True

    def _references(self) -> list[Ref[Any] | After]:
        found: list[Ref[Any] | After] = []
        for item in fields(self):  # type: ignore[arg-type]  # every stage is a dataclass
            found += _references_in(getattr(self, item.name))
        return found


def _references_in(value: object) -> list[Ref[Any] | After]:
    if isinstance(value, Ref | After):
        return [value]
    if isinstance(value, tuple | list):
        return [ref for item in value for ref in _references_in(item)]
    if isinstance(value, Mapping):
        return [ref for item in value.values() for ref in _references_in(item)]
    return []


class Context:
    """Services of the engine for one run of one stage: inputs, claims, log, cancel. It knows nothing about clouds."""

    def __init__(
        self,
        stage: str,
        outputs: Mapping[str, Any],
        journal: Journal,
        events: Events,
        cancel: Cancel,
        clock: Clock,
    ) -> None:
        self.stage = stage
        self.journal = journal
        self.cancel = cancel
        self.clock = clock
        self._outputs = outputs
        self._emit = events.emit
        self._stamp = events.stamp

    def __getitem__(self, ref: Ref[T]) -> T:
        return cast(T, self._outputs[ref.stage])

    @property
    def run_id(self) -> str:
        return self.journal.run.id

    def intend(self, kind: str, region: str, *, lifetime: Lifetime, details: Mapping[str, str] | None = None) -> Claim:
        """Claim the resource that the next call may create; on disk when this returns. Raises Cancelled."""
        self.cancel.check()
        return self.journal.intend(kind, region, lifetime=lifetime, stage=self.stage, details=details)

    def make(
        self,
        kind: str,
        region: str,
        *,
        lifetime: Lifetime,
        create: Callable[[Claim], str],
        find: Callable[[str], str | None],
        details: Mapping[str, str] | None = None,
    ) -> Claim:
        """Claim a resource, create it and bind the claim, unless an earlier process of the run has created it already.

        `find` looks for the resource by its token, in case that process died before it got the id.
        """
        claim = self.intend(kind, region, lifetime=lifetime, details=details)
        if claim.id is not None:
            return claim
        id = self.found_again(claim, find)
        return self.bind(claim, create(claim) if id is None else id)

    def found_again(self, claim: Claim, find: Callable[[str], str | None]) -> str | None:
        """Return the id of a resource that an earlier process created for this claim; a cloud may show it late."""
        if not self.journal.is_adopted(claim):
            return None
        for pause in (*SHOWN_PAUSES, None):
            if (id := find(claim.token)) is not None or pause is None:
                return id
            self.cancel.sleep(pause)
        return None

    def bind(self, claim: Claim, id: str) -> Claim:
        """Bind a claim to the id that the cloud returned."""
        bound = self.journal.bind(claim, id)
        self._emit(events.Held(*self._stamp(), claim.kind, claim.region, id))
        return bound

    def released(self, claim: Claim) -> None:
        """Release a claim whose resource is deleted."""
        self.journal.release(claim)
        self._emit(events.Released(*self._stamp(), claim.kind, claim.region, claim.id or claim.token))

    def own_file(self, kind: str) -> Path:
        """Return the path of a file that this stage alone keeps in the run's folder."""
        return self.journal.folder / f"{kind}.{self.stage.replace('/', '.')}"

    def say(self, text: str) -> None:
        """Write a line of imagepipe's own to the log."""
        self._emit(events.Line(*self._stamp(), self.stage, "say", text))

    def line(self, stream: Literal["out", "err"], text: str) -> None:
        """Write a line of a command's output to the log."""
        self._emit(events.Line(*self._stamp(), self.stage, stream, text))

    def finding(self, rule: str, path: str, text: str, allowed: str = "") -> None:
        """Record something that a scan found; `allowed` is the reason for which it may be in the image."""
        self._emit(events.Finding(*self._stamp(), self.stage, rule, path, text, allowed))

    def progress(self, text: str, done: float | None = None, *, of_bytes: int | None = None) -> None:
        """Report the progress of the stage: `done` from 0 to 1, and the size of the whole if bytes are transferred."""
        self._emit(events.Progress(*self._stamp(), self.stage, text, done, of_bytes))

    def deadline(self, seconds: float) -> Deadline:
        return Deadline.after(seconds, self.clock)

    @contextmanager
    def span(self, label: events.SpanLabel) -> Iterator[None]:
        """Label the time spent inside, for reports on where a build's time goes."""
        began = self.clock.monotonic()
        try:
            yield
        finally:
            seconds = self.clock.monotonic() - began
            self._emit(events.Span(*self._stamp(), self.stage, label, round(seconds, 6)))
