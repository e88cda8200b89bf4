"""The key of a spec: its name and, for a variant of a matrix, the value of each axis: `web[release=bookworm]`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from imagepipe.dataclass import dataclass

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
AXIS = r"[A-Za-z_][A-Za-z0-9_]*"
VALUE = r"[A-Za-z0-9._+-]{1,64}"
_KEY = re.compile(rf"(?P<name>{NAME})(\[(?P<axes>{AXIS}={VALUE}(?:,{AXIS}={VALUE})*)\])?")
_SELECTION = re.compile(rf"(?P<word>.+?)\[(?P<axes>{AXIS}={VALUE}(?:,{AXIS}={VALUE})*)\]")


@dataclass(frozen=True, slots=True)
class SpecKey:
    """The name of a spec, and the values of the axes that tell its variants apart."""

    name: str
    axes: tuple[tuple[str, str], ...] = ()

    @property
    def variant(self) -> str:
        """The axes as one text, `release=bookworm,size=small`; empty for a spec without a matrix."""
        return ",".join(f"{axis}={value}" for axis, value in self.axes)

    def __str__(self) -> str:
        return f"{self.name}[{self.variant}]" if self.axes else self.name

    def covers(self, other: SpecKey) -> bool:
        """Return whether the other key has this name and at least these values; a bare name covers every variant."""
        return self.name == other.name and set(self.axes) <= set(other.axes)


def parse_key(text: str) -> SpecKey | None:
    """Return the key that a text is; None if it is not a key."""
    found = _KEY.fullmatch(text)
    return SpecKey(found["name"], _axes(found["axes"] or "")) if found else None


def split_selection(word: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Split a word of the command line, `specs/web.yaml[release=bookworm]`, into the file's part and the axes."""
    found = _SELECTION.fullmatch(word)
    return (found["word"], _axes(found["axes"])) if found else (word, ())


def axis_text(value: str | int | float | bool) -> str:
    """Return a value of an axis as a key writes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def key_of(name: str, axes: Mapping[str, str | int | float | bool]) -> SpecKey:
    """Return the key of a variant."""
    return SpecKey(name, tuple((axis, axis_text(value)) for axis, value in axes.items()))


def _axes(text: str) -> tuple[tuple[str, str], ...]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return tuple((axis, value) for axis, _, value in pairs)
