"""One poller per region: one Describe per kind and tick serves every waiting stage of every build in the process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from imagepipe.clock import Clock, Deadline
from imagepipe.cloud.errors import EXPIRED
from imagepipe.errors import CloudError

T = TypeVar("T")
Kind = Literal["instance", "image", "snapshot"]
Describe = Callable[[Sequence[str]], Mapping[str, Mapping[str, Any]]]
"""A function that returns the descriptions of ids, without those that do not exist."""

FIRST_SECONDS = 0.05
"""First pause in seconds; the first Describe comes after half of it, because nothing is ready at once."""
LONGEST_SECONDS = 1.0
"""Longest pause: one call a second serves all builds of a process, a twentieth of the rate that EC2 allows."""
GROWTH = 1.5
GAP_SECONDS = 0.05
LONGEST_GAP_SECONDS = 1.0
"""Smallest and largest pause between two Describes of a kind; it grows with the number of waiting stages. A stage that
starts to wait in between uses the next Describe, so many builds cost hardly more calls than one."""
ERRORS_IN_A_ROW = 8
"""Failed Describes in a row before a wait gives up: several minutes with botocore's retries."""


class Cancel(Protocol):
    """The part of a run's cancel flag that a wait needs."""

    def check(self) -> None: ...

    def calling(self, callback: Callable[[], None]) -> AbstractContextManager[None]: ...


@dataclass(eq=False, slots=True)
class _Waiter:
    kind: Kind
    id: str
    due: float
    interval: float = FIRST_SECONDS
    news: threading.Event = field(default_factory=threading.Event)
    seen: Mapping[str, Any] | None = None
    error: CloudError | None = None
    errors: int = 0


class Poller:
    """Waits in one region. Its thread runs only while somebody waits."""

    def __init__(self, describe: Mapping[Kind, Describe], clock: Clock) -> None:
        self._describe = describe
        self._clock = clock
        self._lock = threading.Condition()
        self._waiters: list[_Waiter] = []
        self._thread: threading.Thread | None = None
        self._not_before: dict[Kind, float] = {}
        """The earliest time of the next Describe of a kind."""

    def until(
        self,
        kind: Kind,
        id: str,
        settled: Callable[[Mapping[str, Any] | None], T | None],
        *,
        operation: str,
        deadline: Deadline,
        cancel: Cancel,
        state: Callable[[Mapping[str, Any]], str],
    ) -> T:
        """Wait until `settled`, given the description of an id (None if it does not exist), returns a value.

        `operation` is for messages: `waiting for image ami-1 in us-east-1`; `state` describes the last state.
        Raises CloudError at the deadline; exceptions of `settled` and `cancel` are passed on. Notices a change within
        a second.
        """
        waiter = _Waiter(kind, id, due=self._clock.monotonic() + FIRST_SECONDS / 2)
        self._add(waiter)
        last = "nothing yet"
        try:
            with cancel.calling(waiter.news.set):
                while True:
                    self._clock.wait(waiter.news, deadline.remaining())
                    cancel.check()
                    if waiter.news.is_set():
                        waiter.news.clear()
                        if waiter.error is not None:
                            raise waiter.error
                        if (result := settled(waiter.seen)) is not None:
                            return result
                        last = state(waiter.seen) if waiter.seen is not None else "not known to EC2"
                    if deadline.is_past():
                        message = f"{operation}: timed out after {deadline.seconds:g} s; last state: {last}"
                        raise CloudError(message, code="Deadline")
        finally:
            self._remove(waiter)

    def _add(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.append(waiter)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="poller", daemon=True)
                self._thread.start()
            self._lock.notify()

    def _remove(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.remove(waiter)
            self._lock.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiters:
                    self._thread = None
                    return
                pause = min(self._due(w) for w in self._waiters) - self._clock.monotonic()
                if pause > 0:
                    self._lock.wait(pause)
                    continue
                now = self._clock.monotonic()
                # All stages that wait for the same kind share the answer, which keeps the number of calls low.
                kinds = {w.kind for w in self._waiters if self._due(w) <= now}
                asked = {kind: [w for w in self._waiters if w.kind == kind] for kind in kinds}
                self._not_before |= {kind: now + _gap(len(waiters)) for kind, waiters in asked.items()}
            for kind, waiters in asked.items():
                self._ask(kind, waiters)

    def _due(self, waiter: _Waiter) -> float:
        return max(waiter.due, self._not_before.get(waiter.kind, waiter.due))

    def _ask(self, kind: Kind, waiters: list[_Waiter]) -> None:
        error: CloudError | None = None
        seen: Mapping[str, Mapping[str, Any]] = {}
        try:
            seen = self._describe[kind](sorted({w.id for w in waiters}))
        except CloudError as failed:
            error = failed
        except Exception as failed:  # noqa: BLE001 - a waiter must get it, or it would wait forever
            error = CloudError(f"describing {kind}s: {type(failed).__name__}: {failed}")
        now = self._clock.monotonic()
        for waiter in waiters:
            if waiter.due <= now:
                waiter.due = now + waiter.interval
                waiter.interval = min(waiter.interval * GROWTH, LONGEST_SECONDS)
            waiter.errors = waiter.errors + 1 if error else 0
            if error is None:
                waiter.seen = seen.get(waiter.id)
                waiter.news.set()
            elif waiter.errors >= ERRORS_IN_A_ROW or error.code in EXPIRED | {"UnauthorizedOperation", "AuthFailure"}:
                waiter.error = error
                waiter.news.set()


def _gap(count: int) -> float:
    """Return the pause in seconds between two Describes that `count` stages wait for."""
    return min(GAP_SECONDS * (2 * count - 1), LONGEST_GAP_SECONDS)
