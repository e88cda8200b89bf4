"""Search for specs, the project file and provisioners."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from imagepipe.errors import Problem, SpecError
from imagepipe.regular_files import broken_link, is_dir, is_file, read_text
from imagepipe.spec.explain import nearest

SUFFIXES = (".yaml", ".yml")
PROJECT_FILE = "imagepipe.yaml"
SHIPPED = Path(__file__).resolve().parent.parent / "provisioners"
"""Folder of the provisioners in a wheel; in a checkout they are beside the package."""
CHECKOUT = Path(__file__).resolve().parent.parent.parent / "provisioners"
DEMO = "web-server.yaml"


def demo_spec() -> Path:
    """Return the spec that `imagepipe demo` bakes: in a wheel beside the provisioners, in a checkout in `specs/`."""
    shipped = SHIPPED.parent / "specs" / DEMO
    return shipped if shipped.is_file() else CHECKOUT.parent / "specs" / DEMO


def spec_files(words: Sequence[str], *, folder: Path) -> list[Path]:
    """Return the files that the command line names, each once; every spec in `specs/` if it names none.

    A word is a path, a folder, or the name of a file in `specs/`, with or without its extension.
    Raises SpecError, naming every word that was not found.
    """
    problems: list[Problem] = []
    found: dict[Path, Path] = {}
    for word in words or ["specs"]:
        files = _files_of(word, folder)
        if not files:
            problems.append(_not_found(word, folder, named=bool(words)))
        for file in files:
            found.setdefault(file.resolve(), file)
    if problems:
        raise SpecError(problems)
    return list(found.values())


def _files_of(word: str, folder: Path) -> list[Path]:
    path = folder / word
    if is_dir(path):
        return [
            _shown(p, folder)
            for p in sorted(path.rglob("*"))
            if p.suffix in SUFFIXES and p.is_file() and p.name != PROJECT_FILE
        ]
    candidates = [path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)]
    if not Path(word).is_absolute():
        specs = folder / "specs" / word
        candidates += [specs, *(specs.with_name(specs.name + suffix) for suffix in SUFFIXES)]
    for candidate in candidates:
        if is_file(candidate):
            return [_shown(candidate, folder)]
    return []


def _shown(path: Path, folder: Path) -> Path:
    try:
        return path.relative_to(folder)
    except ValueError:
        return path


def _not_found(word: str, folder: Path, *, named: bool) -> Problem:
    if not named:
        return Problem(
            "specs",
            0,
            0,
            "no specs/ folder with YAML files was found here",
            hint="name a spec, or change to your project's folder",
        )
    if is_dir(folder / word):
        return Problem(word, 0, 0, "this folder has no YAML files")
    if link := broken_link(folder / word, word):
        return Problem(word, 0, 0, link)
    existing = [p.name for p in (folder / "specs").glob("*") if p.suffix in SUFFIXES and p.name != PROJECT_FILE]
    meant = nearest(Path(word).name, [*existing, *(Path(name).stem for name in existing)])
    hint = f"did you mean {meant}?" if meant else (f"specs/ has {', '.join(sorted(existing))}" if existing else None)
    return Problem(word, 0, 0, "this spec was not found, neither here nor in specs/", hint=hint)


def file_of_spec(name: str, beside: Path) -> Path | None:
    """Return the file that has the spec of this name, beside another spec or in the nearest `specs/`; None if none has.

    A file that is named like the spec comes first. Raises SpecError if several others have it.
    """
    folder = beside.parent
    nearest_specs = next((p / "specs" for p in beside.resolve().parents if (p / "specs").is_dir()), None)
    for place in dict.fromkeys([folder, *([nearest_specs] if nearest_specs else [])]):
        files = sorted(p for p in place.rglob("*") if p.suffix in SUFFIXES and p.is_file() and p.name != PROJECT_FILE)
        has_name = re.compile(rf"^name:\s*(['\"]?){re.escape(name)}\1\s*(#.*)?$", re.MULTILINE)
        found = [file for file in files if has_name.search(_text_of(file))]
        same = [file for file in found if file.stem == name]
        if len(same or found) > 1:
            listed = ", ".join(str(file) for file in same or found)
            hint = "name the file of the base on the command line too"
            raise SpecError([Problem(str(beside), 0, 0, f"several specs have the name '{name}': {listed}", hint=hint)])
        if found:
            return (same or found)[0]
    return None


def _text_of(file: Path) -> str:
    """Return a file's text; empty if it cannot be read, because the file may have nothing to do with the spec."""
    try:
        return read_text(file)
    except (OSError, UnicodeDecodeError):
        return ""


def project_file(spec: Path) -> Path | None:
    """Return the nearest `imagepipe.yaml`, from the spec's folder upwards."""
    for folder in spec.resolve().parents:
        if (folder / PROJECT_FILE).is_file() or (folder / PROJECT_FILE).is_symlink():  # a broken link is an error
            return folder / PROJECT_FILE
    return None


def named_file(folder: Path, given: str) -> Path:
    """Return the path of a file that a spec in this folder names: relative to it, or with `~` for a home folder."""
    try:
        return folder / Path(given).expanduser()
    except RuntimeError:  # no user has that name, so the file does not exist
        return folder / given


def provisioner_folder(name: str, folder: Path) -> Path | None:
    """Find a provisioner in `provisioners/` of the folder or a parent, beside the folder, or among the shipped ones."""
    for root in _roots(folder):
        if is_file(root / name / "provisioner.yaml"):
            return root / name
    return None


def broken_provisioner(name: str, folder: Path) -> str | None:
    """Return the problem with a provisioner that was not found because of a broken link; None if that is not why."""
    for root in _roots(folder):
        for path in (root / name, root / name / "provisioner.yaml"):
            if os.path.islink(path) and (link := broken_link(path, str(path))):  # noqa: PTH114 - no error for a long name
                return link
    return None


def _roots(folder: Path) -> list[Path]:
    return [*(p / "provisioners" for p in (folder, *folder.parents)), folder.parent, SHIPPED, CHECKOUT]


def provisioner_names(folder: Path) -> list[str]:
    """Return the name of every provisioner that a spec in this folder can use."""
    return list(provisioner_folders(folder))


def provisioner_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of every provisioner that a spec in this folder can use, by its name in alphabetical order."""
    found: dict[str, Path] = {}
    for root in (*(p / "provisioners" for p in (folder, *folder.parents)), SHIPPED, CHECKOUT):
        for file in root.glob("*/provisioner.yaml"):
            found.setdefault(file.parent.name, file.parent)
    return dict(sorted(found.items()))


def is_shipped(folder: Path) -> bool:
    """Return whether a provisioner's folder is one that imagepipe ships."""
    return folder.parent in (SHIPPED, CHECKOUT)
