"""gzip with zlib alone, which is all that a stock image has; `bundle.deflate` does it with a faster library."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from imagepipe.bundle.member import one_member

LEVEL = 2
"""Of a mix of /usr, 1.06 times what gzip -6 makes; level 1 makes 1.08 times as much, no faster; level 3 makes 1.05
at three quarters of the speed (docs/explanation/benchmarks.md)."""


def gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """One gzip member with the blocks' bytes. The same blocks give the same bytes."""
    yield from one_member(blocks, deflate=_deflate, crc32=zlib.crc32)


def _deflate(block: bytes, window: bytes) -> bytes:
    options = (LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflater = zlib.compressobj(*options, zdict=window) if window else zlib.compressobj(*options)
    return deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)
