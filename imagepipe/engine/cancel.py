"""One flag that stops a run: every wait ends at once, and blocking operations are closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock

from imagepipe.clock import Clock
from imagepipe.errors import Cancelled


class Cancel:
    """A flag that any thread or signal handler can set, once and for good."""

    def __init__(self, clock: Clock) -> None:
        self.event = Event()
        self.reason = "cancelled"
        self._clock = clock
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._lock = Lock()
        self._next = 0

    def set(self, reason: str) -> None:
        """Ask everything to stop: set the flag and call the registered functions. The first reason is kept."""
        if self.event.is_set():
            return
        self.reason = reason
        self.event.set()
        with self._lock:
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    def child(self) -> Cancel:
        """Return a flag that is set with this one, and can also be set alone."""
        other = Cancel(self._clock)
        self.also(lambda: other.set(self.reason))
        return other

    def also(self, callback: Callable[[], None]) -> None:
        """Register a function to call, from any thread, when the flag is set; call it now if it already is."""
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
        """Wait for some seconds. Raises Cancelled as soon as the run is asked to stop."""
        self._clock.wait(self.event, seconds)
        self.check()

    @contextmanager
    def calling(self, callback: Callable[[], None]) -> Iterator[None]:
        """Register a function for the time of a block. A cancel calls it, from any thread, to end a blocking call."""
        with self._lock:
            key = self._next = self._next + 1
            self._callbacks[key] = callback
        try:
            self.check()
            yield
        finally:
            with self._lock:
                self._callbacks.pop(key, None)
