"""Search for runs in a store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from imagepipe.clock import iso
from imagepipe.engine.journal import JournalState, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import ImagepipeError, UsageError

LATEST = "latest"
"""Word for the newest run; an id is in hex, so it is never a run's own id."""
READERS = 16
"""Runs of shared state that are read at once: each takes three requests of some 30 ms."""


def past_runs(store: JournalStore) -> Iterator[tuple[str, JournalState | ImagepipeError]]:
    """Yield every run, oldest first as far as the store knows, or the reason why its journal cannot be read."""

    def reading(run: str) -> tuple[str, JournalState | ImagepipeError]:
        try:
            return run, read(store, run)
        except ImagepipeError as error:
            return run, error

    if store.is_local:
        yield from map(reading, store.runs())
        return
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(reading, store.runs())


def started_of(store: JournalStore, run: str, past: JournalState | ImagepipeError) -> str:
    """Return the time at which a run began; of an unreadable one, the time of its journal's last change."""
    if isinstance(past, ImagepipeError):
        return iso(store.changed(run))
    return past.run.started


def run_of(store: JournalStore, word: str) -> str:
    """Return the run whose id is this word, or starts with it; `latest` is the run that began last.

    Raises UsageError.
    """
    if word == LATEST:
        return _latest(store)
    found = [run for run in store.runs() if run.startswith(word)]
    exact = [run for run in found if run == word]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageError(f"several runs begin with '{word}': {', '.join(found)}")
    raise UsageError(f"run '{word}' was not found in {store}", hint="imagepipe runs lists them")


def _latest(store: JournalStore) -> str:
    """Return the run that began last, among those whose journals can be read. Raises UsageError."""
    found = [(past.run.started, run) for run, past in past_runs(store) if not isinstance(past, ImagepipeError)]
    if not found:
        raise UsageError(f"there is no latest run: {store} has no run that can be read")
    return max(found)[1]
