"""What a stage is, as one short text: the same stage with the same inputs and files has the same.

Tools are no part of it (`compare=False`), and neither is what is not shown (`repr=False`): secrets stay out of every
digest, where they could be guessed at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref
from imagepipe.regular_files import read_regular

DIGITS = 16


def fingerprints(graph: Graph) -> dict[str, str]:
    """Of every stage: its class, its plain fields, the bytes and modes of its files, and what it takes from others."""
    found: dict[str, str] = {}
    for name in graph.order():
        stage = graph.stages[name]
        files = [_file(path) for root in stage.files() for path in _below(root)]
        words = json.dumps([type(stage).__name__, _words(stage, found), files], sort_keys=True)
        found[name] = hashlib.sha256(words.encode()).hexdigest()[:DIGITS]
    return found


def _words(value: Any, found: Mapping[str, str]) -> Any:
    if isinstance(value, Ref):
        return found[value.stage]
    if is_dataclass(value) and not isinstance(value, type):
        shown = [item for item in fields(value) if item.compare and item.repr]
        return {item.name: _words(getattr(value, item.name), found) for item in shown}
    if isinstance(value, tuple | list):
        return [_words(item, found) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _words(item, found) for key, item in value.items()}
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _below(root: Path) -> list[Path]:
    if root.is_dir():
        return sorted(path for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return [root.resolve()]  # a file that is named by a link is what the link leads to


def _file(path: Path) -> list[str]:
    """What a file is; one that does not exist, or cannot be read, has its own word: its stage has the error."""
    try:
        if path.is_symlink():
            return [path.name, "link", str(path.readlink())]
        return [path.name, oct(path.stat().st_mode), hashlib.sha256(read_regular(path)).hexdigest()]
    except OSError:
        return [path.name, "absent"]
