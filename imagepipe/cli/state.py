"""The place of all runs."""

from __future__ import annotations

from imagepipe.cli.options import state_folder
from imagepipe.engine.file_store import FileStore


def local_state() -> FileStore:
    """Return the runs on this computer."""
    return FileStore(state_folder())
