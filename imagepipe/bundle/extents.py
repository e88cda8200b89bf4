"""Runs of data in an image, and what between them is not worth leaving out.

Also sent to instances (see `capture.agent`), whose Python may be 3.7: nothing newer here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ZERO_BLOCK = bytes(4096)
"""What is looked for; the block of most file systems, and of the page cache."""
LEAST_HOLE_BYTES = 64 << 10
"""A shorter run of zeros is packed: 10 GiB have at most 80,000 extents, whose map takes 2 MB of the tar."""


class Extent(NamedTuple):
    """A run of data in an image."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def nonzero_runs(content: bytes) -> Iterator[Extent]:
    """The runs of blocks that are not all zeros; the last block may be a short one."""
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
    """The extents, in order, with what a hole shorter than `least_hole` would part joined."""
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
    """What the file system does not know to be a hole."""
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
            begin, end = at, size  # a block device does not tell
        yield Extent(begin, end - begin)
        at = end
