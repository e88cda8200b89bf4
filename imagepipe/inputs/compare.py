"""Compare two lists of inputs: the reasons why an image is stale."""

from __future__ import annotations

from imagepipe.dataclass import dataclass
from imagepipe.inputs.manifest import Input, InputManifest

ORDER = ("source", "variable", "file", "step", "launch", "output", "format")
"""Kinds of input in the order in which changes are listed: the base first, because everything else stands on it."""
DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Change:
    """One input that differs."""

    kind: str
    name: str
    old: str
    """Old value, or the beginning of its digest; empty if the input is new."""
    new: str
    """New value, or the beginning of its digest; empty if the input is gone."""

    def describe(self) -> str:
        """Return the change as a line of text."""
        if not self.old:
            return f"{self.kind} {self.name}: new, {self.new}"
        return f"{self.kind} {self.name}: {self.old} is gone" if not self.new else self._replaced()

    def _replaced(self) -> str:
        return f"{self.kind} {self.name}: {self.old} -> {self.new}"


def compare(old: InputManifest, new: InputManifest, *, with_source: bool = True) -> list[Change]:
    """Return every difference between two lists of inputs, the source image first."""
    before, after = _by_name(old), _by_name(new)
    changes: list[Change] = []
    for key in sorted({*before, *after}, key=lambda key: (ORDER.index(key[0]), key[1])):
        if key[0] == "source" and not with_source:
            continue
        one, two = before.get(key), after.get(key)
        if one is None or two is None or (one.digest, one.mode) != (two.digest, two.mode):
            shows_value = _is_told_apart_by_value(one, two)
            changes.append(Change(*key, _shown(one, shows_value), _shown(two, shows_value)))
    return changes


def _by_name(manifest: InputManifest) -> dict[tuple[str, str], Input]:
    return {(each.kind, each.name): each for each in manifest.inputs if each.kind in ORDER}


def _is_told_apart_by_value(one: Input | None, two: Input | None) -> bool:
    values = [each.value for each in (one, two) if each is not None]
    return all(values) and len(set(values)) == len(values)


def _shown(each: Input | None, shows_value: bool) -> str:
    """Return the value of an input, or else the beginning of its digest, with the mode of a file."""
    if each is None:
        return ""
    text = each.value if shows_value else each.digest[:DIGEST_SHOWN]
    if each.kind == "step" and not shows_value:
        text = f"{each.value} ({text})"
    return f"{text} mode {each.mode}" if each.mode and not each.mode.startswith("->") else text
