"""The fingerprint of a stage: a short digest of everything that decides its result, and of nothing else.

A stage of a spec has the same fingerprint in every run, at any time, in any folder, and with any other specs. So the
graph must be planned with placeholders for `build.*` and for the values of sensitive variables
(`LoadedSpec.reference`). That also keeps secrets out of the digests, from which somebody could guess them.

Every field is included unless it is declared with `compare=False` (tools, run tags, texts for people). Paths are left
out; the contents and modes of the files that a stage reads are included instead.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import After, Ref, Stage
from imagepipe.regular_files import read_regular

DIGITS = 16
UNKNOWN = "unknown"
"""The fingerprint of a stage that cannot be planned without the values of a run."""


def fingerprints(graph: Graph) -> dict[str, str]:
    """Return the fingerprint of every stage: its class, fields and files, and the fingerprints of its inputs."""
    found: dict[str, str] = {}
    for name in graph.order():
        content = json.dumps(_stage(graph.stages[name], found), sort_keys=True)
        found[name] = hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
    return found


def _stage(stage: Stage[Any], found: Mapping[str, str]) -> list[Any]:
    files = [_file(path, root) for root in stage.files() for path in _below(root)]
    return [type(stage).__name__, _plain(stage, found), files]


def _plain(value: Any, found: Mapping[str, str]) -> Any:
    """Return a value in a form that JSON can hold."""
    if isinstance(value, Ref | After):
        return found[value.stage]
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name), found) for item in fields(value) if item.compare}
    if isinstance(value, tuple | list):
        return [_plain(item, found) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item, found) for key, item in value.items()}
    if isinstance(value, Path):
        return "path"
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _below(root: Path) -> Iterator[Path]:
    """Yield a file, or a folder and everything in it. A link at the root is resolved to its target."""
    if not root.is_dir():
        yield root.resolve()
        return
    yield root
    yield from sorted(root.rglob("*"))


def _file(path: Path, root: Path) -> list[str]:
    """Describe one file; `absent` if it cannot be read, because its stage reports the error."""
    name = "." if not root.is_dir() else str(path.relative_to(root))
    try:
        if path.is_symlink() and path != root:
            return [name, "link", str(path.readlink())]
        mode = oct(path.stat().st_mode)
        return [name, mode] if path.is_dir() else [name, mode, hashlib.sha256(read_regular(path)).hexdigest()]
    except OSError:
        return [name, "absent"]
