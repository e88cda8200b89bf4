"""Keys of earlier drafts of the language. Each is an error, at its position, that names the new spelling.

No old spelling works: the error is recorded first. The key is then renamed in the parsed document, so that a spec's
other problems are found in the same call, without a second error for the old key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from imagepipe.errors import Problem
from imagepipe.spec.document import Document, KeyPath

ANY = "*"


@dataclass(frozen=True, slots=True)
class OldSpelling:
    """A key that has another name now."""

    path: str
    """Path of the old key; `*` stands for any key or index."""
    new: str
    """Key that replaces it."""
    sentence: str
    """Hint: how the same thing is written now."""
    values: Mapping[object, object] = field(default_factory=dict)
    """New value of each old one; empty where values stay as they are."""

    def message(self) -> str:
        """Return the message of the error."""
        return f"key '{self.path.rpartition('.')[2]}' is replaced by '{self.new}'"


def _of_steps(key: str, new: str, sentence: str, values: Mapping[object, object]) -> tuple[OldSpelling, ...]:
    return tuple(OldSpelling(f"{steps}.{ANY}.{key}", new, sentence, values) for steps in ("provision", "test", "steps"))


RENAMED: tuple[OldSpelling, ...] = (
    OldSpelling("launch.volumes", "block_devices", "launch.block_devices takes the same list"),
    OldSpelling("source.ami.newest", "most_recent", "source.ami.most_recent takes the same value; true is the default"),
    OldSpelling("launch.spot.fall_back", "fallback", "launch.spot.fallback takes the same value; true is the default"),
    OldSpelling(
        "output.imds",
        "imds_support",
        "imds_support: v2.0 is the default; imds_support: source keeps the setting of the source image",
        {"v2": "v2.0", "v1": "source"},
    ),
    OldSpelling("publish.copy_timeout", "timeout", "publish.timeout takes the same value"),
    *_of_steps(
        "on_disconnect",
        "expect_disconnect",
        "write expect_disconnect: true for a step that ends the connection, and leave the key out of all others",
        {"expected": True, "fail": False},
    ),
    *_of_steps("rerun", "idempotent", "write idempotent: true for a step that may run more than once", {"safe": True}),
    OldSpelling(
        f"variables.{ANY}.required",
        "default",
        'a variable without default is required; default: "" makes it optional',
        {False: ""},
    ),
)
KEY_OF_REGION = f"output.encrypt.per_region.{ANY}"
"""Path that once had a KMS key as its value; it is now a mapping, as in `output.per_region`."""


def old_spellings(document: Document) -> list[Problem]:
    """Return an error for each old spelling in a document, and replace the spellings there."""
    problems: list[Problem] = []
    for renamed in RENAMED:
        for path in list(_matches(document.value, tuple(renamed.path.split(".")))):
            problems.append(document.problem(path, renamed.message(), key=True, hint=renamed.sentence))
            _rename(document, path, renamed)
    for path in list(_matches(document.value, tuple(KEY_OF_REGION.split(".")))):
        parent, region = _parent(document.value, path), path[-1]
        if isinstance(key := parent[region], str):
            message = f"the value of a region is now a mapping: write {region}: {{kms_key: {key}}}"
            problems.append(document.problem(path, message))
            parent[region] = {"kms_key": key}
            document.values[*path, "kms_key"] = document.values[path]
    return problems


def _rename(document: Document, path: KeyPath, renamed: OldSpelling) -> None:
    """Rename a key in place; drop it if the new key exists too, or if its value has no new spelling."""
    parent, old = _parent(document.value, path), path[-1]
    value = parent[old]
    is_known = isinstance(value, str | bool) and value in renamed.values
    if renamed.new in parent or (renamed.values and not is_known):
        del parent[old]
        document.forget(path)
        return
    new_value = renamed.values[value] if is_known else value
    entries = [(renamed.new, new_value) if key == old else (key, item) for key, item in parent.items()]
    parent.clear()
    parent.update(entries)
    document.rename(path, renamed.new)
    if is_known:
        document.plain.pop((*path[:-1], renamed.new), None)


def _parent(value: Any, path: KeyPath) -> dict[Any, Any]:
    for part in path[:-1]:
        value = value[part]
    assert isinstance(value, dict)
    return value


def _matches(value: Any, pattern: tuple[str, ...], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the paths of a document that match a pattern; the last part is always a key of a mapping."""
    first, rest = pattern[0], pattern[1:]
    if isinstance(value, dict):
        found: list[tuple[str | int, Any]] = [(key, item) for key, item in value.items() if first in (key, ANY)]
    elif isinstance(value, list) and first == ANY and rest:
        found = list(enumerate(value))
    else:
        found = []
    for key, item in found:
        if rest:
            yield from _matches(item, rest, (*path, key))
        else:
            yield (*path, key)
