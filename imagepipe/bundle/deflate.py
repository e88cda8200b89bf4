"""gzip by isal: written with several cores as one member (see `member`), read whatever members there are."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

from isal import igzip_lib, isal_zlib

from imagepipe.bundle.flow import BLOCK_BYTES
from imagepipe.bundle.member import one_member
from imagepipe.errors import BundleError

LEVEL = 3
"""Of isal's 0 to 3. Of a mix of /usr, 3 makes 1.07 times as much as gzip -6, and 2 makes 1.10 times as much, deflating
nearly twice as fast."""
MEMORY_LEVEL = 3
"""isal then writes new Huffman tables more often: 1 % less than with its default, as fast."""
IsalError: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub takes the class for an instance


def worst_case(size: int) -> int:
    """Bytes that `gzipped` makes of so many at most: noise was seen to grow by 560 in each MiB."""
    return size + (size >> 10) + 1024


def gzipped(blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """One gzip member with the blocks' bytes."""
    yield from one_member(blocks, deflate=_deflate, crc32=isal_zlib.crc32)


def gunzipped(blocks: Iterable[bytes]) -> Generator[bytes, None, None]:
    """What one or several gzip members hold, in blocks of at most BLOCK_BYTES. Raises BundleError.

    The blocks that come in are small at best: the inflater copies what it has not yet used, again and again.
    """
    inflater: igzip_lib.IgzipDecompressor | None = None
    seen = False
    for block in blocks:
        rest = block
        while rest:
            if inflater is None:
                inflater, seen = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), True
            yield from _inflated(inflater, rest)
            rest = inflater.unused_data if inflater.eof else b""
            inflater = None if inflater.eof else inflater
    if inflater is not None or not seen:
        raise BundleError("what the bundle holds ends in the middle of its gzip stream")


def _inflated(inflater: igzip_lib.IgzipDecompressor, feed: bytes) -> Iterator[bytes]:
    try:
        block = inflater.decompress(feed, BLOCK_BYTES)
        while block or not (inflater.needs_input or inflater.eof):
            if block:
                yield block
            if inflater.needs_input or inflater.eof:
                return
            block = inflater.decompress(b"", BLOCK_BYTES)
    except (IsalError, EOFError) as error:
        raise BundleError(f"what the bundle holds is not gzip: {error}") from error


def _deflate(block: bytes, window: bytes) -> bytes:
    options = (LEVEL, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS, MEMORY_LEVEL)
    deflater = isal_zlib.compressobj(*options, zdict=window) if window else isal_zlib.compressobj(*options)
    made: bytes = deflater.compress(block) + deflater.flush(isal_zlib.Z_SYNC_FLUSH)
    return made
