"""A model of the valid part of a spec with errors, so that one call finds the other errors too.

Refused values are removed, or replaced by valid ones, until the models accept the rest. Problems at removed paths are
not reported.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from imagepipe.spec.document import KeyPath
from imagepipe.spec.explain import error_paths
from imagepipe.spec.models import Spec

_HARMLESS: dict[str, Any] = {
    "imagepipe": 1,
    "name": "unknown",
    "source": {"ami": "ami-00000000"},
    "output": {"name": "unknown"},
}
_HARMLESS_ITEMS: dict[str, Any] = {
    "provision": {"reboot": {}},
    "test": {"reboot": {}},
    "block_devices": {"device": "/dev/xvddz"},
    "regions": "unknown",
    "exclude": "/unknown",
}
"""Replacements of refused items. Without them, the items after a refused one would have wrong positions."""
_ROUNDS = 6
"""Number of attempts. Removing a required key makes its parent invalid, which the next attempt removes."""


def salvage(value: Any, error: ValidationError) -> tuple[Spec | None, frozenset[KeyPath]]:
    """Return the spec without refused values (None if no valid part is left), and the removed paths."""
    value = copy.deepcopy(value)
    removed: set[KeyPath] = set()
    for _ in range(_ROUNDS):
        for path in error_paths(error, Spec):
            if not any(path[: len(taken)] == taken for taken in removed):  # a value may have two errors
                removed.add(_take_out(value, path))
        for key, harmless in _HARMLESS.items():
            if key not in value:
                value[key] = copy.deepcopy(harmless)
                removed.add((key,))
        try:
            return Spec.model_validate(value), frozenset(removed)
        except ValidationError as again:
            error = again
    return None, frozenset(removed)


def covers(removed: frozenset[KeyPath], path: Sequence[str]) -> bool:
    """Return whether a path, as a sequence of texts, is below or above a removed path."""
    paths = [tuple(map(str, each)) for each in removed]
    return any(tuple(path[: len(each)]) == each or each[: len(path)] == tuple(path) for each in paths)


def _take_out(value: Any, path: KeyPath) -> KeyPath:
    """Remove the value at a path, or the nearest value around it; return the removed path."""
    here = value
    for depth, part in enumerate(path):
        here = here.get(part) if isinstance(here, dict) else None
        item = path[-1]
        if len(path) == depth + 2 and isinstance(item, int) and isinstance(here, list) and part in _HARMLESS_ITEMS:
            here[item] = copy.deepcopy(_HARMLESS_ITEMS[part])
            return path
    around: list[dict[str, Any]] = []
    depths: list[int] = []
    here = value
    for depth, part in enumerate(path):
        if isinstance(here, dict) and part in here:
            around.append(here)
            depths.append(depth)
            here = here[part]
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        else:
            break
    if not around:
        return path
    del around[-1][path[depths[-1]]]  # type: ignore[arg-type]
    return path[: depths[-1] + 1]
