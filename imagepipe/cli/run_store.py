"""Runs on disk, found by what a person types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imagepipe.cli.options import state_folder
from imagepipe.engine.journal import FILE_NAME, JournalState, read
from imagepipe.errors import ImagepipeError, UsageError

CLOSING = "closing.txt"
"""The last lines that a run printed, in its folder."""


def run_folders() -> list[Path]:
    """Every run's folder, oldest first."""
    root = state_folder()
    found = [path.parent for path in root.glob(f"*/{FILE_NAME}")] if root.is_dir() else []
    return sorted(found, key=lambda folder: (folder / FILE_NAME).stat().st_ctime)


def past_runs() -> Iterator[tuple[Path, JournalState | ImagepipeError]]:
    """Every run, or why its journal cannot be read."""
    for folder in run_folders():
        try:
            yield folder, read(folder)
        except ImagepipeError as error:
            yield folder, error


def folder_of(word: str) -> Path:
    """The folder of the run whose id this is, or begins with this. Raises UsageError."""
    found = [folder for folder in run_folders() if folder.name.startswith(word)]
    exact = [folder for folder in found if folder.name == word]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        raise UsageError(f"several runs begin with '{word}': {', '.join(f.name for f in found)}")
    raise UsageError(f"there is no run '{word}' in {state_folder()}", hint="imagepipe runs lists them")
