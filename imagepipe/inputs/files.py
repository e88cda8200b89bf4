"""The files from which specs are loaded and baked: everything that another machine needs to do the same.

Private keys and certificates are not among them: a worker has its own, or they would travel through a bucket.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.inputs.collect import names_of_step
from imagepipe.spec.find import is_shipped, project_file, provisioner_folders
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.steps import StepAt


@dataclass(frozen=True, slots=True)
class NeededFiles:
    """Files, folders and links; the folder of each is a real one, and reached through no link."""

    paths: dict[Path, None] = field(default_factory=dict)
    followed: set[Path] = field(default_factory=set)
    """The links on the way to a file. Other links are uploaded as they are."""

    def add(self, path: Path) -> Path:
        """Add a file or folder, and the links on the way to it; return its real path."""
        real = Path("/")
        left = [*reversed(_absolute(path).parts[1:])]
        while left:
            name = left.pop()
            if name == "..":
                self.paths[real] = None  # `folder/../file` needs the folder
                real = real.parent
                continue
            step = real / name
            if step.is_symlink() and step not in self.followed:
                self.paths[step] = None
                self.followed.add(step)
            if step.is_symlink():
                target = Path(os.readlink(step))  # noqa: PTH115 - one link of several
                if target.is_absolute():
                    real = Path("/")
                left += reversed(target.parts[1:] if target.is_absolute() else target.parts)
                continue
            real = step
        self.paths[real] = None
        return real

    def add_all(self, path: Path) -> None:
        """Add a file, or a folder and everything in it; nothing if it does not exist."""
        if path.exists():
            self.paths.update(dict.fromkeys(_below(self.add(path))))


def files_of(specs: Iterable[LoadedSpec]) -> NeededFiles:
    """Return the files of specs and of their bases.

    Raises UsageError for a file that a step names by an absolute path: on another machine it is another file.
    """
    found = NeededFiles()
    searched: set[Path] = set()
    for spec in specs:
        for each in (spec, *spec.bases()):
            place = place_of(each.file)
            found.add(place)
            if project := project_file(place):
                found.add(project)
            for step in (*each.steps, *each.tests):
                if not is_shipped(step.folder):
                    for name in names_of_step(step):
                        _check_relative(step, name)
                        found.add_all(step.folder / name)
                    if (step.folder / "provisioner.yaml").is_file():
                        found.add_all(step.folder)
            if place.parent not in searched:
                searched.add(place.parent)
                for folder in _provisioners(place.parent):
                    found.add_all(folder)
    return found


def place_of(file: Path) -> Path:
    """Return the absolute path of a spec without `..`, with its links where that is the same file."""
    place = Path(os.path.abspath(file))  # noqa: PTH100 - keeps links
    return place if place.resolve() == file.resolve() else file.resolve()


def _provisioners(folder: Path) -> Iterator[Path]:
    """Yield the folders of the provisioners that a spec in this folder can use, without those that were shipped."""
    beside = (each.parent for each in sorted(folder.parent.glob("*/provisioner.yaml")))
    yield from (each for each in (*provisioner_folders(folder).values(), *beside) if not is_shipped(each))


def _check_relative(step: StepAt, name: str) -> None:
    """Raise UsageError if a step names its file by an absolute path."""
    if name.startswith("/"):
        raise UsageError(
            f"{step.where()}: {name} is an absolute path, which on a worker is another file",
            hint="write a path relative to the file that names it",
        )


def _absolute(path: Path) -> Path:
    return Path.cwd() / path


def _below(path: Path) -> Iterator[Path]:
    """Yield a file, or a folder and everything in it."""
    yield path
    if path.is_dir():
        yield from sorted(path.rglob("*"))
