"""The architecture as a table: who may import whom, and which library belongs to which room."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "imagepipe"

FOUNDATION = {
    "dataclass",
    "errors",
    "late",
    "names",
    "values",
    "clock",
    "masking",
    "files",
    "regular_files",
    "render",
    "deletion",
    "partitions",
    "step_kinds",
    "extras",
}
LAYER_1 = {"spec", "engine", "cloud", "communicator", "bundle", "hygiene", "iam"}
INPUTS = {"inputs"}
STAGES = {"launch", "provision", "capture", "publish"}
ANYTHING = {
    "__init__",
    *FOUNDATION,
    *LAYER_1,
    *INPUTS,
    *STAGES,
    "local",
    "report",
    "wiring",
    "pipeline",
    "assembly",
    "reuse",
    "reconcile",
    "why",
    "planning",
    "retention",
    "preflight",
    "resume",
    "cleanup",
    "state",
    "policy",
    "convert",
    "temporal",
    "cli",
    "library",
}

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": {"errors", "library", "step_kinds"},  # type checkers only: the names are loaded when they are used
    "__main__": {"cli"},
    "dataclass": set(),
    "errors": {"dataclass"},
    "late": {"dataclass"},
    "names": set(),
    "values": {"dataclass"},
    "clock": {"dataclass", "errors", "values"},
    "masking": {"errors", "values"},
    "files": set(),
    "regular_files": set(),
    "render": {"errors", "late", "clock"},
    "deletion": set(),
    "partitions": set(),
    "step_kinds": {"dataclass", "errors"},
    "extras": set(),
    **{room: {"__init__", *FOUNDATION} for room in LAYER_1},
    "hygiene": set(),  # it goes to machines, alone
    "inputs": FOUNDATION | {"spec"},
    **dict.fromkeys(STAGES, FOUNDATION | LAYER_1 | INPUTS),
    "local": {"__init__", *FOUNDATION, "bundle", "hygiene", "iam"},
    "report": {"__init__"} | FOUNDATION | {"engine"},
    "retention": FOUNDATION | LAYER_1 | {"publish"},
    "wiring": FOUNDATION | LAYER_1 | INPUTS | STAGES | {"retention"},
    "pipeline": FOUNDATION | LAYER_1 | STAGES | {"wiring"},
    "assembly": FOUNDATION | LAYER_1 | STAGES | {"wiring", "pipeline"},
    "reuse": FOUNDATION | LAYER_1 | INPUTS | STAGES | {"wiring"},
    "reconcile": FOUNDATION | LAYER_1 | STAGES | {"reuse", "wiring"},
    "planning": FOUNDATION | LAYER_1 | INPUTS | {"reuse", "why", "wiring", "retention"},
    "why": FOUNDATION | LAYER_1 | INPUTS | {"reuse"},
    "preflight": FOUNDATION | LAYER_1 | STAGES | {"wiring"},
    "policy": FOUNDATION | {"spec", "iam"},
    "convert": FOUNDATION | {"spec"},
    "resume": FOUNDATION | LAYER_1 | STAGES,
    "cleanup": FOUNDATION | LAYER_1 | STAGES,
    "state": FOUNDATION | {"engine", "cloud"},
    "temporal": {"__init__"} | FOUNDATION,
    "cli": ANYTHING - {"library"},
    "library": ANYTHING,
}

LIBRARIES: dict[str, set[str]] = {
    "_typeshed": {"cli"},  # type checkers only
    "botocore": {"cloud", "local"},
    "paramiko": {"communicator"},
    "moto": {"local"},
    "cheroot": {"local"},
    "werkzeug": {"local"},
    "rich": {"report"},
    "opentelemetry": {"report"},
    "jinja2": {"render"},
    "networkx": {"wiring"},
    "pydantic": {"spec", "inputs", "planning"},
    "pydantic_core": {"spec"},
    "yaml": {"spec", "local"},
    "ruamel": {"spec"},
    "cryptography": {"communicator", "bundle", "local"},
    "isal": {"bundle"},
    "click": {"cli"},
    "temporalio": {"temporal"},
}


def _modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


@cache
def _nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@cache
def _imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in _nodes(path):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return names


def _every_import() -> Iterator[tuple[Path, str]]:
    for path in _modules():
        for name in _imports(path):
            yield path, name


def test_a_room_imports_only_what_its_layer_may() -> None:
    wrong = []
    for path, name in _every_import():
        top, _, rest = name.partition(".")
        room, other = _room(path), rest.partition(".")[0]
        other = other if other in MAY_IMPORT else "__init__"
        if top == "imagepipe" and other != room and other not in MAY_IMPORT[room]:
            wrong.append(f"{path}: {room} may not import {other} ({name})")
    assert not wrong


def test_every_library_has_a_room() -> None:
    wrong = []
    for path, name in _every_import():
        top = name.partition(".")[0]
        if top != "imagepipe" and top not in sys.stdlib_module_names and _room(path) not in LIBRARIES.get(top, ()):
            wrong.append(f"{path}: {top} belongs to {LIBRARIES.get(top, 'no room yet')}")
    assert not wrong


def test_the_table_names_every_room_that_is_there() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(MAY_IMPORT)


LOCAL_FOLDERS = ("client", "daemon", "aws", "machines", "disks", "host", "store", "codec")
"""The rooms of `local`, from the top down: each may import those after it, and none before."""


def _of_package(path: Path) -> Iterator[str]:
    """Modules of the package that a module imports, wherever in it."""
    for name in _imports(path):
        parts = name.split(".")
        while parts and parts[0] == "imagepipe":
            file = ROOT.parent.joinpath(*parts)
            if file.with_suffix(".py").is_file() or (file / "__init__.py").is_file():
                yield ".".join(parts)
                break
            parts.pop()


def test_no_arrow_between_the_rooms_of_the_local_cloud_runs_back_up() -> None:
    wrong = []
    for path in _modules():
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] != "local" or parts[1] == "__init__":
            continue
        below = LOCAL_FOLDERS[LOCAL_FOLDERS.index(parts[1]) :]
        others = [name for name in _of_package(path) if name.startswith("imagepipe.local.")]
        wrong += [f"{path}: {parts[1]} may not import {name}" for name in others if name.split(".")[2] not in below]
    assert not wrong


def test_no_modules_import_one_another_in_a_circle() -> None:
    names = {path: ".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in _modules()}
    left = {name.removesuffix(".__init__"): set(_of_package(path)) - {name} for path, name in names.items()}
    left["imagepipe"].clear()  # its imports are for type checkers: the library's names are loaded when they are used
    while leaves := [name for name, others in left.items() if not others & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"in a circle, or above one: {sorted(left)}"


def test_the_recipe_fits_on_two_screens() -> None:
    assert len((ROOT / "pipeline.py").read_text().splitlines()) <= 120


MOST_PARAMETERS = 7


def test_no_function_takes_more_than_seven_parameters() -> None:
    """A dataclass collects what belongs together; its own constructor is not written by hand."""
    wrong = []
    for path in _modules():
        for node in _nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                names = [each.arg for each in every if each.arg not in ("self", "cls")]
                if len(names) > MOST_PARAMETERS:
                    wrong.append(f"{path}:{node.lineno} {node.name}({', '.join(names)})")
    assert not wrong
