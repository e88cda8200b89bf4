"""Runs in a bucket: an object for each record of a journal, so that a record is whole or absent.

PREFIX/index/STARTED-RUN                    a name for each run, in the order of time
PREFIX/runs/RUN/lease.json                  the process that may write
PREFIX/runs/RUN/journal/00000001.json       a record; written only if the number is free
PREFIX/runs/RUN/journal/through-00000060.jsonl   the first 60 records again, for readers: one request instead of 60
PREFIX/runs/RUN/events/00000001.jsonl       a batch of events
PREFIX/runs/RUN/inputs/KEY.json, closing.txt     documents
PREFIX/runs/RUN/abandoned                   nobody may begin the run any more
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from imagepipe.clock import Clock, iso
from imagepipe.engine import events as ev
from imagepipe.engine.journal_store import EventReader, RunInProgress, StoredJournal
from imagepipe.errors import CloudError, ImagepipeError, UsageError
from imagepipe.state.bucket import Conflict, StateBucket
from imagepipe.state.event_batches import BatchReader, EventBatches
from imagepipe.state.lease import LEASE_SECONDS, Lease, check_free, is_held

log = logging.getLogger(__name__)

ABANDONED = "abandoned"
RECORD = re.compile(r"(\d{8})\.json")
THROUGH = re.compile(r"through-(\d{8})\.jsonl")


class BucketStore:
    """The runs in a bucket. Private keys and large temporary files stay in folders on this computer."""

    is_local = False

    def __init__(
        self, bucket: StateBucket, folders: Path, clock: Clock, *, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        """`folders` is the local folder for the folders of runs."""
        self._bucket, self._folders, self._clock, self._lease_seconds = bucket, folders, clock, lease_seconds

    def __str__(self) -> str:
        return str(self._bucket.location)

    def create(self, run: str) -> BucketRun:
        lease = Lease(self._bucket, run, self._clock, seconds=self._lease_seconds)
        try:
            lease.create()
        except RunInProgress:
            if self.journal(run).records:
                raise
            # A process died after it took the lease, and before it wrote anything.
            lease = Lease(self._bucket, run, self._clock, seconds=self._lease_seconds)
            lease.take_over()
        try:
            if self.document(run, ABANDONED) is not None:
                raise RunInProgress(f"run {run} was cleaned up before it began", hint="start the build again")
            name = f"index/{self._clock.now():%Y%m%dT%H%M%SZ}-{run}"
            self._bucket.put(name, b"")
            return BucketRun(self._bucket, run, self._own_folder(run), lease, self._clock)
        except BaseException:
            lease.release()
            raise

    def abandon(self, run: str) -> None:
        """Let no process begin this run any more. One that has its lease already may have begun it.

        A process that was suspended may be late: without this, it would begin after the clean-up.
        """
        self._bucket.put(f"runs/{run}/{ABANDONED}", b"")

    def reopen(self, run: str) -> BucketRun:
        lease = Lease(self._bucket, run, self._clock, seconds=self._lease_seconds)
        lease.take_over()
        try:
            opened = BucketRun(self._bucket, run, self._own_folder(run), lease, self._clock)
            opened.fence(lambda: [line for _, line in self.journal(run).records])
        except BaseException:
            lease.release()
            raise
        return opened

    def runs(self) -> list[str]:
        return list(dict.fromkeys(key.rpartition("-")[2] for key in self._bucket.keys("index/")))

    def journal(self, run: str) -> StoredJournal:
        prefix = _journal(run)
        names = [key.removeprefix(prefix) for key in self._bucket.keys(prefix)]
        numbers = [int(found[1]) for name in names if (found := RECORD.fullmatch(name))]
        through = max((int(found[1]) for name in names if (found := THROUGH.fullmatch(name))), default=0)
        after = [number for number in numbers if number > through]
        url = f"{self.place(run)}/journal"
        if after != list(range(through + 1, through + 1 + len(after))):
            raise UsageError(f"journal {url} has holes: a record was deleted")
        lines: list[bytes] = []
        if through:
            (content,) = self._bucket.read_many([f"{prefix}through-{through:08}.jsonl"])
            lines = content.splitlines()
        lines += self._bucket.read_many([f"{prefix}{number:08}.json" for number in after])
        return StoredJournal(url, [(f"record {number:08}", line) for number, line in enumerate(lines, start=1)])

    def is_held(self, run: str) -> bool:
        return is_held(self._bucket, run)

    def check_free(self, run: str) -> None:
        check_free(self._bucket, run)

    def changed(self, run: str) -> datetime:
        # A run whose objects were deleted by hand may still be in the index.
        return max(
            (modified for _, modified in self._bucket.listed(f"runs/{run}/")), default=datetime.fromtimestamp(0, UTC)
        )

    def events(self, run: str) -> Iterator[ev.AnyEvent]:
        return self.event_reader(run).new()

    def event_reader(self, run: str) -> EventReader:
        return BatchReader(self._bucket, _events(run))

    def document(self, run: str, name: str) -> bytes | None:
        found = self._bucket.read(f"runs/{run}/{name}")
        return found.content if found else None

    def put(self, run: str, name: str, content: bytes) -> None:
        self._bucket.put(f"runs/{run}/{name}", content)

    def folder(self, run: str) -> Path:
        return self._folders / run

    def place(self, run: str) -> str:
        return f"{self._bucket.location}/runs/{run}"

    def _own_folder(self, run: str) -> Path:
        folder = self.folder(run)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ImagepipeError(
                f"making {folder}, the folder for the private keys of the run: {error.strerror}",
                hint="set XDG_STATE_HOME to a folder that can be written; it may be lost when the run has ended",
            ) from error
        return folder


class BucketRun:
    """A run whose lease this process has."""

    def __init__(self, bucket: StateBucket, run: str, folder: Path, lease: Lease, clock: Clock) -> None:
        self.folder = folder
        self._bucket, self._run, self._lease, self._clock = bucket, run, lease, clock
        self._lines: list[bytes] = []
        # One thread writes, in order. A stage waits only for the records that must be stored before it goes on.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"journal of {run}")
        self._errors: SimpleQueue[BaseException] = SimpleQueue()

    def fence(self, read: Callable[[], list[bytes]]) -> None:
        """Take the next number of the journal: an earlier owner that still lives cannot add a record any more."""
        owner = self._lease.owner
        record = {"time": iso(self._clock.now()), "type": "opened", "host": owner.host, "pid": owner.pid}
        while True:
            self._lines = read()
            try:
                line = self._line(record)
                self._bucket.create(self._record_key(), line)
            except Conflict:
                self._lease.check()
                continue  # the earlier owner was faster; its record counts too
            self._lines.append(line)
            return

    def append(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        self._lease.check()
        written = self._writer.submit(self._write, self._line(record))
        if sync:
            written.result()
        else:
            written.add_done_callback(self._note_error)
        if error := self._take_error():
            raise error

    def check_held(self) -> None:
        self._lease.check()

    def on_lost(self, callback: Callable[[str], None]) -> None:
        self._lease.on_lost(callback)

    def event_sink(self) -> AbstractContextManager[ev.Sink]:
        return EventBatches(self._bucket, _events(self._run), self._lease, self._clock)

    def put(self, name: str, content: bytes) -> None:
        self._lease.check()
        self._bucket.put(f"runs/{self._run}/{name}", content)

    def close(self) -> None:
        self._writer.shutdown()
        if error := self._take_error():
            log.warning("the journal of run %s lacks a record: %s", self._run, error)
        with suppress(CloudError, Conflict):  # readers can do without it
            if self._lines and not self._lease.is_lost:
                whole = b"".join(line + b"\n" for line in self._lines)
                self._bucket.create(f"{_journal(self._run)}through-{len(self._lines):08}.jsonl", whole)
        self._lease.release()

    def _write(self, line: bytes) -> None:
        while not self._is_written(line):
            pass
        self._lines.append(line)

    def _note_error(self, written: Future[None]) -> None:
        """Note the error of a write that nobody waits for, so that the next one raises it."""
        if error := written.exception():
            self._errors.put(error)

    def _take_error(self) -> BaseException | None:
        try:
            return self._errors.get_nowait()
        except Empty:
            return None

    def _line(self, record: Mapping[str, Any]) -> bytes:
        text = json.dumps({**record, "writer": self._lease.owner.id}, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace")

    def _is_written(self, line: bytes) -> bool:
        """Write a record with the next number; return False if that number has an earlier record of ours.

        That is a record whose answer was lost, and which was reported as not written. Raises RunLost if the number has
        a record of another process.
        """
        try:
            self._bucket.create(self._record_key(), line)
            return True
        except Conflict as error:
            found = self._bucket.read(self._record_key())
            if found is None or not self._is_ours(found.content):
                raise self._lease.lose() from error
            if found.content == line:
                return True
            self._lines.append(found.content)
            return False

    def _is_ours(self, content: bytes) -> bool:
        try:
            return bool(json.loads(content)["writer"] == self._lease.owner.id)
        except (ValueError, KeyError, TypeError):
            return False

    def _record_key(self) -> str:
        return f"{_journal(self._run)}{len(self._lines) + 1:08}.json"


def _journal(run: str) -> str:
    return f"runs/{run}/journal/"


def _events(run: str) -> str:
    return f"runs/{run}/events/"
