"""Clocks for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event


@dataclass
class Stopped:
    """A clock whose time passes by waits alone."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 11, 25, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: Event, seconds: float) -> bool:
        self.waits.append(seconds)
        self.seconds += seconds
        return event.is_set()
