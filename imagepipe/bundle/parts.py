"""The parts of a bundle: their names, splitting a stream into parts, and where they are written and read."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from imagepipe.bundle.flow import in_sizes
from imagepipe.dataclass import dataclass
from imagepipe.deletion import delete_tree
from imagepipe.errors import BundleError

PART_BYTES = 10 << 20
LARGEST_PART_BYTES = 64 << 20
"""Largest part; no tool makes larger ones, and a part is in memory until its digest is verified."""
NAME = re.compile(r"(?!-)(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,200}\Z")
"""Valid names of a bundle and of its files."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a bundle, as in its manifest."""

    index: int
    """Number of the part, from 0."""
    filename: str
    sha1: str
    """SHA-1 of the part in lower-case hex."""


class PartSink(Protocol):
    """A destination for a bundle, which is incomplete until `finish` has returned."""

    def put(self, part: Part, content: bytes) -> None:
        """Write one part; they come in order."""

    def finish(self, filename: str, manifest: bytes) -> None:
        """Write the manifest, after all parts."""


PartSource = Callable[[str], Iterable[bytes]]
"""A function that yields the bytes of the part with this filename; raises BundleError if the part does not exist."""


def check_name(name: str) -> str:
    """Return the name if it is valid for a bundle and its files. Raises BundleError."""
    if not NAME.match(name):
        raise BundleError(
            f"a bundle's files cannot be called {name!r}",
            hint="use letters, digits, '.', '_' and '-', but do not begin with '-'",
        )
    return name


def width_for(most_bytes: int) -> int:
    """Return the digits of part numbers for a bundle of at most this size, so that names sort by number."""
    return max(2, len(str((most_bytes - 1) // PART_BYTES)))


def part_name(name: str, index: int, *, width: int) -> str:
    return f"{name}.part.{index:0{width}}"


def cut(blocks: Iterable[bytes], name: str, *, width: int) -> Generator[tuple[Part, bytes], None, None]:
    """Split a stream into parts with their bytes; the last one is never empty."""
    for index, content in enumerate(in_sizes(blocks, PART_BYTES)):
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        yield Part(index, part_name(name, index, width=width), digest), content


def read_part(source: PartSource, part: Part, others: Iterable[Part] = ()) -> bytes:
    """Read a part and verify its digest. Raises BundleError, also if it is too large; `others` are for its message."""
    pieces: list[bytes] = []
    have = 0
    for piece in source(part.filename):
        pieces.append(piece)
        have += len(piece)
        if have > LARGEST_PART_BYTES:
            raise BundleError(
                f"part {part.filename} is larger than {LARGEST_PART_BYTES >> 20} MiB, so it is not a part of a bundle"
            )
    content = b"".join(pieces)
    found = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if found != part.sha1:
        taken_for = next((other.filename for other in others if other.sha1 == found), None)
        raise BundleError(
            f"part {part.filename} is damaged: {have} bytes with SHA-1 {found}, but the manifest has {part.sha1}",
            hint=f"it has the bytes of {taken_for}: are the files swapped?" if taken_for else None,
        )
    return content


def folder_source(folder: Path) -> PartSource:
    """Return a source that reads parts from a folder."""

    def read(filename: str) -> Iterator[bytes]:
        path = folder / check_name(filename)
        if not path.is_file():
            raise BundleError(f"part {filename} is missing from {folder}")
        with path.open("rb", buffering=0) as file:
            while piece := file.read(1 << 20):
                yield piece

    return read


class FolderSink:
    """Writes a bundle to a folder. The files get their names only when all are complete, the manifest last.

    If the `with` block ends before that, they are deleted.
    """

    def __init__(self, folder: Path, name: str, *, is_forced: bool = False) -> None:
        self._folder, self._name, self._is_forced = folder, check_name(name), is_forced
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._is_forced and (there := sorted(self._of_this_name())):
            raise BundleError(
                f"packing {self._name} into {self._folder}: {there[0].name} already exists",
                hint="use another name or folder, or replace it with --force",
            )
        self._half = Path(tempfile.mkdtemp(prefix=f".{self._name}.", suffix=".half", dir=self._folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            delete_tree(self._half)

    def put(self, part: Part, content: bytes) -> None:
        path = self._half / check_name(part.filename)
        path.write_bytes(content)
        self._made.append(path)

    def finish(self, filename: str, manifest: bytes) -> None:
        path = self._half / check_name(filename)
        path.write_bytes(manifest)
        for (
            old
        ) in self._of_this_name():  # with force: its manifest first, so that it never lists parts of the new bundle
            old.unlink()
        for made in (*self._made, path):
            made.rename(self._folder / made.name)

    def _of_this_name(self) -> list[Path]:
        part = re.compile(re.escape(self._name) + r"\.part\.\d+\Z")
        manifest = self._folder / f"{self._name}.manifest.xml"
        parts = [path for path in self._folder.iterdir() if part.match(path.name)]
        return ([manifest] if manifest.exists() else []) + parts
