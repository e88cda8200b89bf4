"""Where specs, the project's defaults and provisioners are found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagepipe.errors import Problem, SpecError
from imagepipe.spec.explain import nearest

SUFFIXES = (".yaml", ".yml")
PROJECT_FILE = "imagepipe.yaml"
SHIPPED = Path(__file__).resolve().parent.parent / "provisioners"
"""Where a wheel has the provisioners; a checkout has them beside the package."""
_CHECKOUT = Path(__file__).resolve().parent.parent.parent / "provisioners"
DEMO = "web-server.yaml"


def demo_spec() -> Path:
    """The spec that `imagepipe demo` bakes: in a wheel beside the provisioners, in a checkout under `specs/`."""
    shipped = SHIPPED.parent / "specs" / DEMO
    return shipped if shipped.is_file() else _CHECKOUT.parent / "specs" / DEMO


def spec_files(words: Sequence[str], *, folder: Path) -> list[Path]:
    """The files that the command line means, each once; every spec under `specs/` where it names none.

    A word is a path, a folder, or the name of a file in `specs/`, with its ending or without.
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
    if path.is_dir():
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
        if candidate.is_file():
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
            "there is no specs/ folder with YAML files here",
            hint="name a spec, or go to your project's folder",
        )
    if (folder / word).is_dir():
        return Problem(word, 0, 0, "there is no YAML file in this folder")
    there = [p.name for p in (folder / "specs").glob("*") if p.suffix in SUFFIXES]
    meant = nearest(Path(word).name, [*there, *(Path(name).stem for name in there)])
    hint = f"did you mean {meant}?" if meant else (f"specs/ has {', '.join(sorted(there))}" if there else None)
    return Problem(word, 0, 0, "no such spec, here or in specs/", hint=hint)


def project_file(spec: Path) -> Path | None:
    """The nearest `imagepipe.yaml`, from the spec's folder upwards."""
    for folder in spec.resolve().parents:
        if (folder / PROJECT_FILE).is_file():
            return folder / PROJECT_FILE
    return None


def named_file(folder: Path, given: str) -> Path:
    """A file of the user's that a spec in this folder names: beside it, or from `~`, a home folder."""
    try:
        return folder / Path(given).expanduser()
    except RuntimeError:  # nobody has that name, and so there is no such file either
        return folder / given


def provisioner_folder(name: str, folder: Path) -> Path | None:
    """`provisioners/NAME`, looked up from a folder upwards, then among those shipped."""
    for root in [*(p / "provisioners" for p in (folder, *folder.parents)), folder.parent, SHIPPED, _CHECKOUT]:
        if (root / name / "provisioner.yaml").is_file():
            return root / name
    return None


def provisioner_names(folder: Path) -> list[str]:
    """Every provisioner that a spec in this folder can use."""
    roots = [*(p / "provisioners" for p in (folder, *folder.parents)), SHIPPED, _CHECKOUT]
    return sorted({p.parent.name for root in roots for p in root.glob("*/provisioner.yaml")})
