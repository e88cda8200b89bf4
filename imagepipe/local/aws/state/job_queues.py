"""Background work after an answer: one queue for each resource, in order within a queue, all queues in parallel.

A machine's driver takes one call at a time, a snapshot must see the disk as it was when it was asked for, and a
terminate must come after the stop before it: putting all of an instance's work in one queue gives all three.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from imagepipe.clock import Clock, Deadline

log = logging.getLogger(__name__)


class Closing(Exception):
    """The cloud's process is ending; the work is taken up again by the next one."""


class JobQueues:
    """Queues by key. A queue's thread lives only while it has work."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._delays: dict[str, float] = {}
        self._lock = threading.Lock()
        self._queues: dict[str, deque[tuple[Callable[[], None], Future[None]]]] = {}
        self._threads: set[threading.Thread] = set()
        self._closing = threading.Event()
        self._changed = threading.Event()
        """Set when a delay changes or the process ends; each change gets a new one."""

    def submit(self, key: str, work: Callable[[], None]) -> Future[None]:
        """Do this after all that was submitted under the same key."""
        done: Future[None] = Future()
        with self._lock:
            if self._closing.is_set():
                done.set_exception(Closing())
                return done
            if key in self._queues:
                self._queues[key].append((work, done))
                return done
            self._queues[key] = deque([(work, done)])
            thread = threading.Thread(target=self._serve, args=(key,), name=f"jobs of {key}", daemon=True)
            self._threads.add(thread)
        thread.start()
        return done

    def delay(self, kind: str) -> None:
        """Wait as long as `set_delay` says; a change of the delay takes effect at once. Raises Closing."""
        began = self._clock.monotonic()
        while True:
            with self._lock:
                rest = began + self._delays.get(kind, 0.0) - self._clock.monotonic()
                changed = self._changed
            if rest <= 0:
                return
            self._clock.wait(changed, rest)
            if self._closing.is_set():
                raise Closing

    def has_delay(self, kind: str) -> bool:
        """Tell if work of this kind takes longer than it needs, as `set_delay` says."""
        return bool(self._delays.get(kind))

    def run_later(self, seconds: float, work: Callable[[], object], *, at_close: bool = False) -> None:
        """Run the work after so many seconds, outside all queues. If the process ends earlier: only with `at_close`."""

        def wait() -> None:
            is_closing = self._clock.wait(self._closing, seconds)
            if at_close or not is_closing:
                work()
            with self._lock:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=wait, name="later job", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def set_delay(self, kind: str, seconds: float) -> None:
        """Make work of this kind take at least so many seconds, also work that is waiting now.

        Kinds are `run`, `stop`, `terminate`, `attach`, `detach`, `modify`, `optimize`,
        `volume`, `snapshot`, `image`, `copy`, `import`, `nat-gateway`, `usage-report` and `parameter`.
        """
        with self._lock:
            self._delays[kind] = seconds
            self._changed.set()
            self._changed = threading.Event()

    def close(self, seconds: float = 10.0) -> None:
        """Wait so many seconds at most for the running jobs, and start no others."""
        self._closing.set()
        with self._lock:
            self._changed.set()
            threads = tuple(self._threads)
        deadline = Deadline.after(seconds, self._clock)
        for thread in threads:
            thread.join(deadline.remaining())

    def _serve(self, key: str) -> None:
        while True:
            with self._lock:
                queue = self._queues[key]
                if not queue:
                    del self._queues[key]
                    self._threads.discard(threading.current_thread())
                    return
                work, done = queue.popleft()
            if self._closing.is_set():
                done.set_exception(Closing())
                continue
            try:
                work()
            except Closing as closing:
                done.set_exception(closing)
            except Exception as error:  # the queue must continue after any failure
                log.exception("work on %s failed", key)
                done.set_exception(error)
            else:
                done.set_result(None)
