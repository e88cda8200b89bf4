"""One gzip member of blocks that several threads deflate side by side, each knowing the last 32 KiB before it.

As pigz does it. Readers differ in what they make of several members, so there is one. With isal here (`deflate`), and
with zlib on instances (see `capture.agent`), whose Python may be 3.7: nothing newer here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Iterator

from imagepipe.bundle.flow import in_order, workers

WINDOW_BYTES = 32 << 10
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""No name, no time: the same image gives the same bytes, so that what was sent need not be sent again."""
END = b"\x03\x00"
"""An empty last block: no block before it has to know that it is the last."""


def one_member(
    blocks: Iterable[bytes], *, deflate: Callable[[bytes, bytes], bytes], crc32: Callable[[bytes, int], int]
) -> Generator[bytes, None, None]:
    """One gzip member with the blocks' bytes; the same blocks give the same bytes.

    `deflate(block, window)` makes raw deflate of a block, flushed to a whole byte; `window` is what was before it.
    """
    crc = size = 0

    def with_windows() -> Iterator[tuple[bytes, bytes]]:
        nonlocal crc, size
        window = b""
        for block in blocks:
            crc, size = crc32(block, crc), size + len(block)
            yield block, window
            window = block[-WINDOW_BYTES:]

    threads = workers()
    yield HEADER
    work = with_windows()
    yield from in_order(lambda each: deflate(*each), work, threads=threads, waiting=2 * threads + 2)
    yield END + struct.pack("<II", crc, size & 0xFFFFFFFF)
