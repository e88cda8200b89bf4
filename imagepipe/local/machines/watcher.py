"""One thread that learns of the end of processes, whoever their parent is, and ticks once a second."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

TICK_SECONDS = 1.0
log = logging.getLogger(__name__)


class Watcher:
    """Calls `on_end` with a name, in a thread of its own, when the process watched under that name has ended."""

    def __init__(self, *, on_end: Callable[[str], None], on_tick: Callable[[], None]) -> None:
        self._on_end = on_end
        self._on_tick = on_tick
        self._poll = select.poll()
        self._names: dict[int, str] = {}
        self._ending: list[threading.Thread] = []
        self._wake, self._wake_end = os.pipe()
        self._poll.register(self._wake, select.POLLIN)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="machines", daemon=True)
        self._thread.start()

    def watch(self, name: str, pid: int) -> None:
        """Watch a process from now on; one that has ended already is reported too."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._report(name)
            return
        self._names[fd] = name
        self._poll.register(fd, select.POLLIN)
        os.write(self._wake_end, b"+")

    def close(self) -> None:
        """Stop watching, and wait for reports that are under way."""
        self._closing = True
        os.write(self._wake_end, b"x")
        self._thread.join()
        for thread in self._ending:
            thread.join()
        for fd in (*self._names, self._wake, self._wake_end):
            os.close(fd)

    def _run(self) -> None:
        next_tick = time.monotonic() + TICK_SECONDS
        while not self._closing:
            for fd, _ in self._poll.poll(max(0.0, next_tick - time.monotonic()) * 1000):
                if fd == self._wake:
                    os.read(fd, 4096)
                    continue
                name = self._names.pop(fd)  # before it is closed: then `watch` may be given the same number
                self._poll.unregister(fd)
                os.close(fd)
                self._report(name)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + TICK_SECONDS
                self._guarded(self._on_tick)

    def _report(self, name: str) -> None:
        self._ending = [thread for thread in self._ending if thread.is_alive()]
        thread = threading.Thread(target=lambda: self._guarded(lambda: self._on_end(name)), name=f"end of {name}")
        self._ending.append(thread)
        with suppress(RuntimeError):  # the interpreter is ending: the next process of the store cleans up
            thread.start()

    def _guarded(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # nobody would see an exception of a thread
            log.exception("watching machines")
