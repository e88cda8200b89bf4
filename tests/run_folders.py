"""Journals by the folder of their run, for tests that look into the folder."""

from __future__ import annotations

from pathlib import Path

from imagepipe.clock import Clock
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Journal, JournalState, RunRecord
from imagepipe.engine.journal import read as read_run


def create(folder: Path, run: RunRecord, clock: Clock) -> Journal:
    """Create the journal of a new run, whose id is the folder's name."""
    assert folder.name == run.id
    return Journal.create(FileStore(folder.parent), run, clock)


def reopen(folder: Path, clock: Clock) -> Journal:
    return Journal.reopen(FileStore(folder.parent), folder.name, clock)


def read(folder: Path) -> JournalState:
    return read_run(FileStore(folder.parent), folder.name)
