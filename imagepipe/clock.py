"""Time, as a value that is passed in: a build, a poller and the local cloud can each be given another one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> datetime:
        """The time of day, in UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point, never going back."""

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait for the event, at most so long; true if it came."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: Event, seconds: float) -> bool:
        return event.wait(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment after which nobody waits any longer."""

    at: float
    """In the clock's monotonic seconds."""
    seconds: float
    """How long it was when it was set, for messages."""
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        return cls(at=clock.monotonic() + seconds, seconds=seconds, clock=clock)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    def is_past(self) -> bool:
        return self.remaining() == 0.0


def iso(moment: datetime) -> str:
    """`2026-11-23T03:05:00.123456Z`: sorts as text, and every reader takes it."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """The moment that `iso` wrote."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
