"""Find the data of a sparse image: skip the file's holes and blocks of zeros.

An image of 9 GiB with 130 MiB of data is packed as fast as 130 MiB alone.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path

from imagepipe.bundle.extents import ZERO_BLOCK, Extent, merged, nonzero_runs, not_holes
from imagepipe.bundle.flow import BLOCK_BYTES, in_order, workers
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError


@dataclass(frozen=True, slots=True)
class Image:
    """An image to pack: its size, its extents with data, and a function to read them."""

    size: int
    extents: Sequence[Extent]
    """Extents in order, disjoint and within the size; everything else is zeros."""
    read: Callable[[int, int], bytes] = field(repr=False)
    """`read(offset, length)` returns that many bytes; it is called once per range, with increasing offsets."""
    modified: int = 0
    """Modification time in seconds since 1970, for the tar."""

    def __post_init__(self) -> None:
        at = 0
        for extent in self.extents:
            if extent.length <= 0 or extent.offset < at or extent.end > self.size:
                raise BundleError(f"an image of {self.size} bytes cannot have {extent} after {at}")
            at = extent.end

    @property
    def data_bytes(self) -> int:
        return sum(extent.length for extent in self.extents)


@contextmanager
def opened_image(path: Path) -> Iterator[Image]:
    """Open the raw image in a file or block device; reads its data once to find zeros. Raises BundleError."""
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise BundleError(f"packing {path}: it is neither a file nor a block device")
        size = os.lseek(fd, 0, os.SEEK_END)
        extents = tuple(data_extents(fd, size))
        yield Image(size, extents, lambda at, count: _read(fd, at, count, path), int(os.fstat(fd).st_mtime))


def data_extents(fd: int, size: int) -> Iterator[Extent]:
    """Return the extents of an open file with data, in whole blocks except at its end."""

    def look(chunk: Extent) -> list[Extent]:
        content = os.pread(fd, chunk.length, chunk.offset)
        return [Extent(chunk.offset + run.offset, run.length) for run in nonzero_runs(content)]

    threads = workers()
    chunks = _chunks(not_holes(fd, size), size)
    found = in_order(look, chunks, threads=threads, waiting=2 * threads)
    return merged(run for runs in found for run in runs)


def _chunks(extents: Iterable[Extent], size: int) -> Generator[Extent, None, None]:
    """Widen extents to whole blocks and split them into chunks."""
    block = len(ZERO_BLOCK)
    at = 0
    for extent in extents:
        at = max(at, extent.offset - extent.offset % block)
        end = min(size, extent.end + -extent.end % block)
        while at < end:
            length = min(BLOCK_BYTES, end - at)
            yield Extent(at, length)
            at += length


def _read(fd: int, offset: int, count: int, path: Path) -> bytes:
    content = os.pread(fd, count, offset)
    while len(content) < count:
        more = os.pread(fd, count - len(content), offset + len(content))
        if not more:
            raise BundleError(f"packing {path}: the file became shorter during the read")
        content += more
    return content
