"""Write one gzip member with several threads; each deflates a block with the 32 KiB before it as its dictionary.

pigz works like this. Readers handle several members differently, so there is only one. isal deflates here
(`deflate`), and zlib on instances (see `capture.agent`), whose Python may be 3.7: use nothing newer here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator, Iterable, Iterator

from imagepipe.bundle.flow import in_order, workers

WINDOW_BYTES = 32 << 10
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Header without name and time, so that the same image gives the same bytes and need not be uploaded again."""
END = b"\x03\x00"
"""An empty last block, so that no other block needs to know whether it is the last."""


def one_member(
    blocks: Iterable[bytes], *, deflate: Callable[[bytes, bytes], bytes], crc32: Callable[[bytes, int], int]
) -> Generator[bytes, None, None]:
    """Compress the blocks into one gzip member; the same blocks give the same bytes.

    `deflate(block, window)` returns a block as raw deflate, flushed to a whole byte; `window` is the data before it.
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
