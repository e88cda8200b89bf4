"""Search for the folders of runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imagepipe.cli.options import state_folder
from imagepipe.engine.journal import FILE_NAME, JournalState, read
from imagepipe.errors import ImagepipeError, UsageError

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


def folder_of(word: str) -> Path:
    """Return the folder of the run whose id is this word, or starts with it. Raises UsageError."""
    found = [folder for folder in run_folders() if folder.name.startswith(word)]
    exact = [folder for folder in found if folder.name == word]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageError(f"several runs begin with '{word}': {', '.join(f.name for f in found)}")
    raise UsageError(f"run '{word}' was not found in {state_folder()}", hint="imagepipe runs lists them")
