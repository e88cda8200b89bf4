"""Search for the folders of runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from imagepipe.cli.options import state_folder
from imagepipe.clock import iso
from imagepipe.engine.journal import FILE_NAME, JournalState, read
from imagepipe.errors import ImagepipeError, UsageError

LATEST = "latest"
"""Word for the newest run; an id is in hex, so it is never a run's own id."""
CLOSING = "closing.txt"
"""File in a run's folder with the last lines that it printed."""


def run_folders() -> list[Path]:
    """Return every run's folder, oldest first."""
    root = state_folder()
    found = [path.parent for path in root.glob(f"*/{FILE_NAME}")] if root.is_dir() else []
    return sorted(found, key=lambda folder: (folder / FILE_NAME).stat().st_ctime)


def past_runs() -> Iterator[tuple[Path, JournalState | ImagepipeError]]:
    """Yield every run, or the reason why its journal cannot be read."""
    for folder in run_folders():
        try:
            yield folder, read(folder)
        except ImagepipeError as error:
            yield folder, error


def started_of(folder: Path, past: JournalState | ImagepipeError) -> str:
    """Return the time at which a run began; of an unreadable one, the time of its journal's last change."""
    if isinstance(past, ImagepipeError):
        return iso(datetime.fromtimestamp((folder / FILE_NAME).stat().st_mtime, UTC))
    return past.run.started


def folder_of(word: str) -> Path:
    """Return the folder of the run whose id is this word, or starts with it; `latest` is the run that began last.

    Raises UsageError.
    """
    if word == LATEST:
        return _latest()
    found = [folder for folder in run_folders() if folder.name.startswith(word)]
    exact = [folder for folder in found if folder.name == word]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageError(f"several runs begin with '{word}': {', '.join(f.name for f in found)}")
    raise UsageError(f"run '{word}' was not found in {state_folder()}", hint="imagepipe runs lists them")


def _latest() -> Path:
    """Return the folder of the run that began last, among those whose journals can be read. Raises UsageError."""
    found = [(past.run.started, folder) for folder, past in past_runs() if not isinstance(past, ImagepipeError)]
    if not found:
        raise UsageError(f"there is no latest run: {state_folder()} has no run that can be read")
    return max(found)[1]
