"""One flag that stops a run: waits end at once, and what blocks is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from imagepipe.clock import Clock
from imagepipe.errors import Cancelled


class Cancel:
    """Set once, from any thread or a signal handler; never unset."""

    def __init__(self, clock: Clock) -> None:
        self.event = Event()
        self.reason = "cancelled"
        self._clock = clock
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._lock = Lock()
        self._next = 0

    def set(self, reason: str) -> None:
        """Ask everything to stop."""
        if self.event.is_set():
            return
        self.reason = reason
        self.event.set()
        with self._lock:
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def child(self) -> Cancel:
        """A flag that is set whenever this one is, and can be set by itself."""
        other = Cancel(self._clock)
        self.also(lambda: other.set(self.reason))
        return other

    def also(self, callback: Callable[[], None]) -> None:
        """Call this when the flag is set, at once if it is; from any thread."""
        with self._lock:
            key = self._next = self._next + 1
            self._callbacks[key] = callback
        if self.event.is_set():
            callback()

    def is_set(self) -> bool:
        return self.event.is_set()

    def check(self) -> None:
        """Raise Cancelled if the run was asked to stop."""
        if self.event.is_set():
            raise Cancelled(self.reason)

    def sleep(self, seconds: float) -> None:
        """Wait so long. Raises Cancelled as soon as the run is asked to stop."""
        self._clock.wait(self.event, seconds)
        self.check()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """While inside, a cancel calls this: to close what blocks. It may be called from any thread."""
        with self._lock:
            key = self._next = self._next + 1
            self._callbacks[key] = callback
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)
