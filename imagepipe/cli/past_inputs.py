"""The lists of inputs that the runs on this computer kept."""

from __future__ import annotations

from datetime import UTC, datetime

from imagepipe.cli.options import state_folder
from imagepipe.errors import ImagepipeError
from imagepipe.inputs.manifest import FOLDER, InputManifest


def stored_manifest(run: str, key: str) -> InputManifest | str:
    """Return the inputs of a spec in a run, or the reason why they are not on this computer."""
    folder = state_folder() / run
    if not run or not folder.is_dir():
        return f"the inputs of run {run or '?'} are not on this computer: it ran elsewhere, or its folder was deleted"
    try:
        return InputManifest.read(folder / FOLDER / f"{key}.json")
    except ImagepipeError as error:
        changed = datetime.fromtimestamp(folder.stat().st_mtime, UTC)
        return f"{error}, since {changed:%Y-%m-%d %H:%M} UTC at the latest"


def stored_source(run: str, key: str) -> str:
    """Return the source image of a bake from the inputs of its run; empty if they are not on this computer."""
    found = stored_manifest(run, key)
    return "" if isinstance(found, str) else found.source
