"""gzip with zlib alone, by several threads: blocks deflated side by side, each knowing what was before, as one member.

As `bundle.deflate` does it with a faster library, which no stock image has.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

from imagepipe.bundle.flow import in_order, workers

LEVEL = 2
"""Of a mix of /usr, 1.05 times what gzip -6 makes; level 1 makes 1.064 times as much and is a fifth faster."""
WINDOW_BYTES = 32 << 10
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""No name, no time: the same image gives the same bytes, so that what was sent need not be sent again."""
END = b"\x03\x00"


def gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """One gzip member with the blocks' bytes. The same blocks give the same bytes."""
    crc = size = 0

    def with_windows() -> Iterator[tuple[bytes, bytes]]:
        nonlocal crc, size
        window = b""
        for block in blocks:
            crc, size = zlib.crc32(block, crc), size + len(block)
            yield block, window
            window = block[-WINDOW_BYTES:]

    threads = workers()
    yield HEADER
    yield from in_order(_deflate, with_windows(), threads=threads, waiting=2 * threads + 2)
    yield END + struct.pack("<II", crc, size & 0xFFFFFFFF)


def _deflate(work: tuple[bytes, bytes]) -> bytes:
    block, window = work
    deflater = (
        zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zdict=window)
        if window
        else zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    )
    return deflater.compress(block) + deflater.flush(zlib.Z_SYNC_FLUSH)
