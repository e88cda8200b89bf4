"""The list of everything that a conversion leaves out."""

from __future__ import annotations

from dataclasses import field

from imagepipe.convert.syntax import Place
from imagepipe.convert.values import LeftOut
from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Unconverted:
    """A part of the template that the specs lack."""

    file: str
    line: int
    """Line in the template, 1-based; 0 for the whole file."""
    what: str
    """The part, and the reason."""
    instead: str
    """The way to get it in imagepipe."""

    def text(self) -> str:
        """Return the entry as one line."""
        return f"{Place(self.file, self.line)}: {self.what}: {self.instead}"


@dataclass(slots=True)
class Listing:
    """Collects what is left out, each entry once, in the order of the template."""

    entries: dict[Unconverted, None] = field(default_factory=dict)
    recent: list[Unconverted] = field(default_factory=list)
    """Entries since `start`, also those that another source of the template has added before."""

    def add(self, at: Place, what: str, instead: str) -> None:
        """Add an entry, unless it is there."""
        entry = Unconverted(at.file, at.line, " ".join(what.split())[:300], instead)
        self.entries.setdefault(entry)
        if entry not in self.recent:
            self.recent.append(entry)

    def add_error(self, error: LeftOut) -> None:
        """Add the entry of an exception."""
        self.add(error.at, error.what, error.instead)

    def start(self) -> None:
        """Begin a new group of entries."""
        self.recent = []

    def sorted(self) -> list[Unconverted]:
        """Return all entries by file and line."""
        return sorted(self.entries, key=lambda entry: (entry.file, entry.line))
