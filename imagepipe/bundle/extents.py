"""Find the runs of data in an image, and join those with small gaps.

Also sent to instances (see `capture.agent`), whose Python may be 3.7: use nothing newer here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ZERO_BLOCK = bytes(4096)
"""A block of zeros, with the block size of most file systems and of the page cache."""
LEAST_HOLE_BYTES = 64 << 10
"""Shortest hole: shorter runs of zeros are packed. 10 GiB then have at most 80,000 extents, a map of 2 MB."""


class Extent(NamedTuple):
    """A run of data in an image."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def nonzero_runs(content: bytes) -> Iterator[Extent]:
    """Return the runs of blocks that are not all zeros; the last block may be short."""
    begin, at, size, step = -1, 0, len(content), len(ZERO_BLOCK)
    is_zero = content.startswith
    while at < size:
        if is_zero(ZERO_BLOCK, at) or (at + step > size and not content[at:].strip(b"\0")):
            if begin >= 0:
                yield Extent(begin, at - begin)
                begin = -1
        elif begin < 0:
            begin = at
        at += step
    if begin >= 0:
        yield Extent(begin, size - begin)


def merged(extents: Iterable[Extent], *, least_hole: int = LEAST_HOLE_BYTES) -> Iterator[Extent]:
    """Join extents that are separated by a hole shorter than `least_hole`."""
    last: Extent | None = None
    for extent in extents:
        if last is None:
            last = extent
        elif extent.offset - last.end < least_hole:
            last = Extent(last.offset, extent.end - last.offset)
        else:
            yield last
            last = extent
    if last is not None:
        yield last


def not_holes(fd: int, size: int) -> Iterator[Extent]:
    """Return the extents of a file that the file system does not report as holes."""
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
            end = min(size, os.lseek(fd, begin, os.SEEK_HOLE))
        except OSError as problem:
            if problem.errno == errno.ENXIO:  # only a hole is left
                return
            if problem.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            begin, end = at, size  # a block device does not report holes
        yield Extent(begin, end - begin)
        at = end
