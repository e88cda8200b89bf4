"""Runs in files on this computer: a folder for each run, with the journal as a file of lines that is locked."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from imagepipe import files
from imagepipe.engine import events as ev
from imagepipe.engine.journal_store import StoredJournal
from imagepipe.errors import ImagepipeError, UsageError

JOURNAL = "journal.jsonl"
LARGEST_BYTES = 64 << 20
"""Largest journal that is read; a build of twenty specs writes about 200 KB."""
LOCK_SECONDS = 0.3  # `imagepipe runs` holds each lock for a moment


class FileStore:
    """The runs in a folder. A process that dies leaves at most one incomplete last line, which readers skip."""

    is_local = True

    def __init__(self, root: Path) -> None:
        self.root = root

    def __str__(self) -> str:
        return str(self.root)

    def create(self, run: str) -> FileRun:
        folder = self.folder(run)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return FileRun(folder, _locked(folder))
        except OSError as error:
            raise _unwritable(folder / JOURNAL, error) from error

    def reopen(self, run: str) -> FileRun:
        folder = self.folder(run)
        return FileRun(folder, _locked(folder))

    def runs(self) -> list[str]:
        found = [path.parent for path in self.root.glob(f"*/{JOURNAL}")] if self.root.is_dir() else []
        return [each.name for each in sorted(found, key=lambda folder: (folder / JOURNAL).stat().st_ctime)]

    def journal(self, run: str) -> StoredJournal:
        path = self.folder(run) / JOURNAL
        if path.exists() and not path.is_file():
            raise UsageError(f"journal {path} is not a regular file")  # opening a pipe would block
        try:
            if (size := path.stat().st_size) > LARGEST_BYTES:
                raise UsageError(f"journal {path} has {size} bytes: no run writes more than {LARGEST_BYTES}")
            content = path.read_bytes()
        except OSError as error:
            raise ImagepipeError(f"reading the journal {path}: {error.strerror}") from error
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        return StoredJournal(str(path), [(f"line {number}", line) for number, line in enumerate(lines, start=1)])

    def is_held(self, run: str) -> bool:
        with (self.folder(run) / JOURNAL).open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
            return False

    def check_free(self, run: str) -> None:
        if self.is_held(run):
            raise _in_progress(run)

    def changed(self, run: str) -> datetime:
        return datetime.fromtimestamp((self.folder(run) / JOURNAL).stat().st_mtime, UTC)

    def events(self, run: str) -> Iterator[ev.AnyEvent]:
        return ev.read_events(self.folder(run) / ev.FILE_NAME)

    def event_reader(self, run: str) -> ev.EventFileReader:
        return ev.EventFileReader(self.folder(run) / ev.FILE_NAME)

    def document(self, run: str, name: str) -> bytes | None:
        path = self.folder(run) / name
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as error:
            raise ImagepipeError(f"reading {path}: {error.strerror}") from error

    def put(self, run: str, name: str, content: bytes) -> None:
        _write(self.folder(run) / name, content)

    def folder(self, run: str) -> Path:
        return self.root / run

    def place(self, run: str) -> str:
        return str(self.folder(run))


class FileRun:
    """A run whose journal this process has locked. The lock ends with the process."""

    def __init__(self, folder: Path, file: BinaryIO) -> None:
        self.folder = folder
        self._file = file
        content = (folder / JOURNAL).read_bytes()
        self._end = content.rfind(b"\n") + 1
        # An incomplete last line of a dead process is cut off first, or the next line would be appended to it.
        self._is_torn = self._end < len(content)

    def append(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        text = json.dumps(record, ensure_ascii=False) + "\n"
        line = text.encode("utf-8", "backslashreplace")  # a path that is not UTF-8 is written with escapes
        file, is_first = self._file.fileno(), self._end == 0
        try:
            if self._is_torn:
                os.ftruncate(file, self._end)
            self._is_torn = True
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(file, rest) :]
            if sync:
                os.fsync(file)
        except OSError as error:
            # Cut off a partly written line, as on a full disk, or the next line would be appended to it.
            with suppress(OSError):
                os.ftruncate(file, self._end)
                self._is_torn = False
            raise _unwritable(self.folder / JOURNAL, error) from error
        self._is_torn = False
        self._end += len(line)
        if is_first:
            files.sync(self.folder)

    def check_held(self) -> None:
        """Do nothing: no other process can get the lock while this one lives."""

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Do nothing: the lock is never lost."""

    def event_sink(self) -> AbstractContextManager[ev.Sink]:
        return ev.EventFile(self.folder / ev.FILE_NAME)

    def put(self, name: str, content: bytes) -> None:
        _write(self.folder / name, content)

    def close(self) -> None:
        self._file.close()


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        files.write_atomically(path, content)
    except OSError as error:
        raise ImagepipeError(f"writing {path}: {error.strerror}") from error


def _locked(folder: Path) -> BinaryIO:
    path = folder / JOURNAL
    path.touch(mode=0o600)
    file: BinaryIO = path.open("ab", buffering=0)
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() < end:
                time.sleep(0.02)
                continue
            file.close()
            raise _in_progress(folder.name) from error
        return file


def _in_progress(run: str) -> UsageError:
    return UsageError(f"run {run} is in progress in another process", hint="wait for it, or end that process first")


def _unwritable(path: Path, error: OSError) -> ImagepipeError:
    return ImagepipeError(
        f"writing the journal {path}: {error.strerror or error}",
        hint="a resource is recorded before it is created: free disk space, or set XDG_STATE_HOME to another folder",
    )
