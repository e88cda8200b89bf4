"""Events of a run as objects of many lines: one each second at most, and one at the end of each stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from threading import Event, Lock, Thread
from types import TracebackType

from imagepipe.clock import Clock
from imagepipe.engine import events as ev
from imagepipe.engine.journal_store import RunLost
from imagepipe.errors import CloudError
from imagepipe.state.bucket import Conflict, StateBucket
from imagepipe.state.lease import Lease

log = logging.getLogger(__name__)

BATCH_SECONDS = 1.0
LATER_SECONDS = 5.0
"""Interval after the first minute, so that an hour is 720 objects and not 3,600."""
FIRST = 60
STAGE_ENDS = (ev.StageFinished, ev.StageFailed, ev.RunFinished)


class EventBatches:
    """The sink that keeps events. A thread of its own writes them, so no event delays the build."""

    def __init__(self, bucket: StateBucket, prefix: str, lease: Lease, clock: Clock) -> None:
        """`prefix` is that of the batches of one run. Batches of earlier processes stay before ours."""
        self._bucket, self._prefix, self._lease, self._clock = bucket, prefix, lease, clock
        self._number = len(bucket.keys(prefix)) + 1
        self._lines: list[str] = []
        self._lock = Lock()
        self._wake, self._is_over = Event(), Event()
        self._thread = Thread(target=self._run, name="events", daemon=True)

    def __call__(self, event: ev.AnyEvent) -> None:
        with self._lock:
            self._lines.append(json.dumps(ev.to_json(event), ensure_ascii=False) + "\n")
        if isinstance(event, STAGE_ENDS):
            self._wake.set()

    def __enter__(self) -> EventBatches:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._is_over.set()
        self._wake.set()
        self._thread.join()
        try:
            self._flush()
        except (CloudError, RunLost) as error:
            log.warning("the last %d events of the run were not kept: %s", len(self._lines), error)

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._clock.wait(self._wake, BATCH_SECONDS if self._number < FIRST else LATER_SECONDS)
            self._wake.clear()
            with suppress(CloudError, RunLost):  # the next batch has these lines too
                self._flush()

    def _flush(self) -> None:
        """Write the events that came since the last batch."""
        with self._lock:
            count = len(self._lines)
            content = "".join(self._lines).encode()
        if not count:
            return
        self._lease.check()  # the events of another owner are not mixed with ours
        while not self._is_written(content):
            self._number += 1
        self._number += 1
        with self._lock:
            del self._lines[:count]

    def _is_written(self, content: bytes) -> bool:
        """Write a batch; return False if another one has its number. After a lost answer, it is there already."""
        key = f"{self._prefix}{self._number:08}.jsonl"
        try:
            self._bucket.create(key, content)
        except Conflict:
            found = self._bucket.read(key)
            return found is not None and found.content == content
        return True


class BatchReader:
    """Read the batches of events of a run, which may still be written."""

    def __init__(self, bucket: StateBucket, prefix: str) -> None:
        self._bucket, self._prefix = bucket, prefix
        self._last = ""
        """Key of the last batch that was read."""

    def new(self) -> Iterator[ev.AnyEvent]:
        """Yield the events of the batches that were added since the last call. Raises CloudError, UsageError."""
        keys = self._bucket.keys(self._prefix, after=self._last)
        for key, content in zip(keys, self._bucket.read_many(keys), strict=True):
            self._last = key
            yield from ev.events_in(content, f"{self._bucket.location}/{key}")
