"""Time as an object that is passed in, so that a build, a poller and the local cloud can have different clocks."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from threading import Event
from typing import Protocol

from imagepipe.dataclass import dataclass


class Clock(Protocol):
    """A source of time that can wait."""

    def now(self) -> datetime:
        """Return the current time in UTC."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary point; never decreases."""

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait for the event for at most `seconds`. Return whether it was set."""


class SystemClock:
    """The computer's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: Event, seconds: float) -> bool:
        return event.wait(seconds)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment at which waiting ends."""

    at: float
    """Time of the deadline in the clock's monotonic seconds."""
    seconds: float
    """Original length in seconds, for messages."""
    clock: Clock

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Deadline:
        return cls(at=clock.monotonic() + seconds, seconds=seconds, clock=clock)

    def remaining(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.at - self.clock.monotonic())

    def is_past(self) -> bool:
        return self.remaining() == 0.0


def iso(moment: datetime) -> str:
    """Format a time as `2026-11-23T03:05:00.123456Z`, which sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_iso(text: str) -> datetime:
    """Parse the text that `iso` returned."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
