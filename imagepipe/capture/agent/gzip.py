"""gzip with zlib, which every stock image has; `bundle.deflate` uses a faster library."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from imagepipe.bundle.member import one_member

LEVEL = 2
"""Compression level. For a sample of /usr, the output is 1.06 times as large as with gzip -6. Level 1 gives 1.08 and is
not faster; level 3 gives 1.05 at three quarters of the speed (docs/explanation/benchmarks.md)."""


def gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Compress the blocks into one gzip member. The same blocks give the same bytes."""
    yield from one_member(blocks, deflate=_deflate, crc32=zlib.crc32)


def _deflate(block: bytes, window: bytes) -> bytes:
    options = (LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflater = zlib.compressobj(*options, zdict=window) if window else zlib.compressobj(*options)
    return deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)
