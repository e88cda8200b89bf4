"""The place where runs are kept: the interface of local files and of shared state.

A run has a journal, which is a list of records, then events, and small documents such as the inputs of its specs. One
process writes to a run at a time. Private keys and large temporary files are not part of it: they stay in the run's
local folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from imagepipe.dataclass import dataclass
from imagepipe.engine.events import AnyEvent, Sink
from imagepipe.errors import ImagepipeError, UsageError

CLOSING = "closing.txt"
"""Document of a run with the last lines that it printed."""


class RunLost(ImagepipeError):
    """Another process has taken over the run, so this one must not change anything any more."""


class RunInProgress(UsageError):
    """Another process has the run open."""


@dataclass(frozen=True, slots=True)
class StoredJournal:
    """The records of a journal as they are stored."""

    name: str
    """Path or URL of the journal, for messages."""
    records: Sequence[tuple[str, bytes]]
    """Each record's place in the journal, such as `line 3`, and its JSON."""


class OpenRun(Protocol):
    """A run to which only this process writes."""

    @property
    def folder(self) -> Path:
        """The run's local folder, for private keys and large temporary files; it exists."""

    def append(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        """Append a whole record to the journal. With `sync`, it is on stable storage when this returns.

        Records are stored in order, so those before it are stored too. Raises RunLost. Raises ImagepipeError if a
        record could not be stored: with `sync` this one or one before it, otherwise perhaps only one before it.
        """

    def check_held(self) -> None:
        """Raise RunLost if another process may have taken over the run; renew the claim on it if that is due."""

    def on_lost(self, callback: Callable[[str], None]) -> None:
        """Register a function to call, from any thread, with the reason when another process takes over the run."""

    def event_sink(self) -> AbstractContextManager[Sink]:
        """Open the sink that keeps the run's events."""

    def put(self, name: str, content: bytes) -> None:
        """Keep a small document; it has its old or its new content. Raises ImagepipeError."""

    def close(self) -> None:
        """Let other processes open the run."""


class EventReader(Protocol):
    """A reader of events that a run may still add to."""

    def new(self) -> Iterator[AnyEvent]:
        """Yield the events that were added since the last call. Raises ImagepipeError."""


class JournalStore(Protocol):
    """All runs in one place."""

    def create(self, run: str) -> OpenRun:
        """Open a new run for writing. Raises ImagepipeError."""

    def reopen(self, run: str) -> OpenRun:
        """Open a run whose process is dead. Raises UsageError if that process is alive."""

    def runs(self) -> list[str]:
        """Return the ids of all runs, oldest first as far as the store knows."""

    def journal(self, run: str) -> StoredJournal:
        """Return the journal of a run, without a record that a dead process left incomplete. Raises ImagepipeError."""

    def is_held(self, run: str) -> bool:
        """Return whether a process has the run open."""

    def check_free(self, run: str) -> None:
        """Raise UsageError, with what is known about the process, if a process has the run open."""

    def changed(self, run: str) -> datetime:
        """Return the time at which the run's journal was changed last."""

    def events(self, run: str) -> Iterator[AnyEvent]:
        """Yield the events of a run in order; none if it has none. Raises ImagepipeError."""

    def event_reader(self, run: str) -> EventReader:
        """Return a reader that begins with the first event of a run, which may not have any yet."""

    def document(self, run: str, name: str) -> bytes | None:
        """Return a document of a run; None if it does not exist. Raises ImagepipeError."""

    def put(self, run: str, name: str, content: bytes) -> None:
        """Keep a document of a run that has ended. Raises ImagepipeError."""

    def folder(self, run: str) -> Path:
        """Return the path of a run's local folder, which may not exist."""

    def place(self, run: str) -> str:
        """Return the path or URL of a run, for people."""

    @property
    def is_local(self) -> bool:
        """True if the runs are on this computer only."""

    def __str__(self) -> str: ...
