"""A spec in the making: its keys, the template's lines that they come from, and the repair of keys that are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from imagepipe.convert.listing import Unconverted
from imagepipe.convert.syntax import Place
from imagepipe.convert.values import Value
from imagepipe.dataclass import dataclass

KeyPath = tuple[str | int, ...]

ORDER = {
    (): ("imagepipe", "name", "variables", "source", "launch", "provision", "output", "publish"),
    ("launch",): (
        *("region", "instance_types", "subnets", "security_groups", "spot", "user_data", "iam_instance_profile"),
        *("block_devices", "tags", "ssh"),
    ),
    ("output",): (
        *(
            "type",
            "name",
            "description",
            "tags",
            "bucket",
            "prefix",
            "account",
            "certificate",
            "private_key",
            "encrypt",
        ),
        *("block_devices", "imds_support", "boot_mode", "on_name_taken"),
    ),
}
"""Order of keys in a written spec."""
_OPTIONS = frozenset({"name", "timeout", "retries", "exit_codes", "expect_disconnect", "sudo"})
_REQUIRED: frozenset[KeyPath] = frozenset(
    {("source",), ("output", "name"), ("output", "bucket"), ("output", "account")}
)


@dataclass(frozen=True, slots=True)
class SourcePath:
    """A local file that a spec names, by its absolute path and the name in the template."""

    path: str
    given: str


@dataclass(slots=True)
class Step:
    """A step, or only notes about a provisioner without one."""

    at: Place
    keys: dict[str, Value]
    notes: list[Unconverted] = field(default_factory=list)
    """Entries of the list that belong to this place."""


@dataclass(slots=True)
class Draft:
    """One spec in the making."""

    name: str
    at: Place
    keys: dict[str, Value] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    notes: list[Unconverted] = field(default_factory=list)
    lines: dict[tuple[str, ...], Place] = field(default_factory=dict)

    def put(self, at: Place, value: Value, *path: str) -> None:
        """Set a key, unless the value is None or an empty list or mapping."""
        if value is None or value == [] or value == {}:
            return
        inner = self.keys
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
        self.lines[path] = at

    def document(self) -> dict[str, Value]:
        """Return the spec as nested values, in the usual order of keys."""
        steps = [step.keys for step in self.steps if step.keys]
        keys = {**self.keys, **({"provision": steps} if steps else {})}
        ordered = {key: keys[key] for key in ORDER[()] if key in keys}
        return {
            key: {inner: value[inner] for inner in ORDER[key,] if inner in value} if (key,) in ORDER else value
            for key, value in ordered.items()
        }

    def place(self, path: KeyPath) -> Place:
        """Return the template's line for a path of the spec."""
        if (step := self.step(path)) is not None:
            return step.at
        names = tuple(part for part in path if isinstance(part, str))
        while names and names not in self.lines:
            names = names[:-1]
        return self.lines.get(names, self.at)

    def step(self, path: KeyPath) -> Step | None:
        """Return the step around a path of the spec; None if the path is not in a step."""
        steps = [step for step in self.steps if step.keys]
        index = path[1] if path[:1] == ("provision",) and len(path) > 1 else None
        return steps[index] if isinstance(index, int) and index < len(steps) else None

    def remove(self, path: KeyPath) -> KeyPath | None:
        """Remove the smallest part around a path that a spec can lack; return its path, None if all is needed."""
        if path[:1] == ("provision",):
            return self._remove_step(path)
        if path[:2] == ("publish", "share"):
            path = path[:2]
        if "block_devices" in path:
            index = path.index("block_devices")
            last = path[index + 2 :]
            path = path if last and last[0] not in ("device", "no_device", "virtual_name") else path[: index + 2]
        if len(path) < 2 or path[:1] == ("source",) or path in _REQUIRED or path == ("launch", "ssh", "user"):
            return None
        return path if _delete(self.keys, path) else None

    def _remove_step(self, path: KeyPath) -> KeyPath | None:
        step = self.step(path)
        if step is None:
            return None
        is_option = len(path) > 2 and (path[2] in _OPTIONS or (path[2] == "env" and len(path) > 3))
        if is_option or path[2:] in (("file", "mode"), ("file", "owner")):
            return path if _delete(step.keys, path[2:]) else None
        step.keys = {}
        return path[:2]


def _delete(value: Value, path: KeyPath) -> bool:
    """Delete the item at a path, and the containers that are empty then. Return whether it existed."""
    key, rest = path[0], path[1:]
    if isinstance(value, dict):
        exists = key in value
    else:
        exists = isinstance(value, list) and isinstance(key, int) and key < len(value)
    if not exists:
        return False
    if rest:
        if not _delete(value[key], rest):
            return False
        if value[key] not in ({}, []):
            return True
    del value[key]
    return True


def key_path(value: Value, parts: Sequence[str]) -> KeyPath:
    """Return the path that a dotted name means in a value whose keys may have dots; as far as it exists."""
    found: list[str | int] = []
    parts = list(parts)
    while parts:
        if isinstance(value, list) and parts[0].isdigit() and int(parts[0]) < len(value):
            found.append(int(parts[0]))
            value, parts = value[int(parts[0])], parts[1:]
        elif isinstance(value, dict):
            sizes = [size for size in range(len(parts), 0, -1) if ".".join(parts[:size]) in value]
            if not sizes:
                break
            key = ".".join(parts[: sizes[0]])
            found.append(key)
            value, parts = value[key], parts[sizes[0] :]
        else:
            break
    return tuple(found)
