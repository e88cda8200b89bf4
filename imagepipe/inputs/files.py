"""The files from which specs are loaded and baked: everything that another machine needs to do the same.

Private keys and certificates are not among them: a worker has its own, or they would travel through a bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from imagepipe.inputs.collect import files_of_step
from imagepipe.spec.find import is_shipped, project_file, provisioner_folders
from imagepipe.spec.loaded import LoadedSpec


def files_of(specs: Iterable[LoadedSpec]) -> list[Path]:
    """Return the files, folders and links of specs and of their bases, each once."""
    found: dict[Path, None] = {}
    provisioned: set[Path] = set()
    for spec in specs:
        for each in (spec, *spec.bases()):
            file = each.file.resolve()
            found[file] = None
            if project := project_file(file):
                found[project] = None
            for step in (*each.steps, *each.tests):
                if not is_shipped(step.folder):
                    for root in files_of_step(step):
                        found |= dict.fromkeys(_everything(root))
            if file.parent not in provisioned:
                provisioned.add(file.parent)
                for folder in provisioner_folders(file.parent).values():
                    if not is_shipped(folder):
                        found |= dict.fromkeys(_everything(folder))
    return list(found)


def _everything(path: Path) -> Iterator[Path]:
    """Yield a file or folder, the links on the way to it, and everything in a folder; nothing if it does not exist."""
    if path.is_symlink():
        yield path
        path = path.resolve()
    if path.is_dir():
        yield path
        yield from sorted(path.rglob("*"))
    elif path.exists():
        yield path
