"""Unpack a bundle into its image: verify each part, then decrypt, inflate and write it in one pipeline.

A bundle is not trusted: names, sizes and the sparse map are checked, and nothing is written beyond the size in the
manifest.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from imagepipe.bundle import tarball
from imagepipe.bundle.cipher import Secret, decrypted
from imagepipe.bundle.deflate import gunzipped
from imagepipe.bundle.extents import nonzero_runs
from imagepipe.bundle.flow import BLOCK_BYTES, ahead
from imagepipe.bundle.manifest import Manifest
from imagepipe.bundle.parts import PartSource, read_part
from imagepipe.errors import BundleError

MOST_PADDING_BYTES = 1 << 20
"""Largest padding after the member; 10 KiB are usual."""


def unpack(
    manifest: Manifest,
    source: PartSource,
    secret: Secret,
    target: Path,
    *,
    is_forced: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the image to a file of mode 0600, with holes for zeros.

    The file gets its name only when all digests are verified. `progress` is called with the number of bytes of the
    image written since its last call; an exception from it ends the unpacking. Raises BundleError.
    """
    if not is_forced and os.path.lexists(target):
        raise BundleError(
            f"unpacking {manifest.name}: {target} already exists",
            hint="unpack into another folder, or replace it with --force",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    fd, half = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".half", dir=target.parent)  # has mode 0600
    try:
        os.truncate(fd, manifest.size)
        done = 0
        with closing(image_data(manifest, source, secret)) as data:
            for offset, content in data:
                for run in nonzero_runs(content):
                    _write(fd, memoryview(content)[run.offset : run.end], offset + run.offset)
                progress(offset + len(content) - done)
                done = offset + len(content)
        progress(manifest.size - done)
        Path(half).rename(target)
    finally:
        os.close(fd)
        with suppress(FileNotFoundError):
            Path(half).unlink()


def image_data(manifest: Manifest, source: PartSource, secret: Secret) -> Generator[tuple[int, bytes], None, None]:
    """Yield the image's data with offsets, in order, split at multiples of BLOCK_BYTES; the rest is zeros.

    All digests and sizes are verified only when the iteration has ended. Raises BundleError.
    """
    with (
        closing(ahead(_sound_parts(manifest, source), depth=1)) as parts,
        closing(ahead(decrypted(parts, secret), depth=16)) as compressed,
        closing(ahead(gunzipped(compressed), depth=4)) as blocks,
    ):
        tar = _Stream(blocks)
        member = tarball.read_head(tar.take)
        if member.size != manifest.size:
            raise BundleError(f"the bundle holds an image of {member.size} bytes, but its manifest has {manifest.size}")
        for extent in member.extents:
            at = extent.offset
            while at < extent.end:
                content = tar.take(min(BLOCK_BYTES - at % BLOCK_BYTES, extent.end - at))
                yield at, content
                at += len(content)
        if any(tar.take(-member.data_bytes % tarball.BLOCK)):
            raise BundleError("the padding of the member in the bundle's tar is not zeros")
        tar.finish()
        if tar.sha1 != manifest.sha1:
            raise BundleError(
                f"the image in {manifest.name} has SHA-1 {tar.sha1}, but the manifest has {manifest.sha1}",
                hint="its parts are intact: it was packed incorrectly, or the manifest was changed",
            )


def _sound_parts(manifest: Manifest, source: PartSource) -> Iterator[bytes]:
    size = 0
    for part in manifest.parts:
        content = read_part(source, part, manifest.parts)
        size += len(content)
        yield content
    if size != manifest.bundled_size:
        raise BundleError(f"the parts have {size} bytes, but the manifest has {manifest.bundled_size}")


def _write(fd: int, content: memoryview, offset: int) -> None:
    while content:
        count = os.pwrite(fd, content, offset)
        content, offset = content[count:], offset + count


class _Stream:
    """A stream of blocks that can be read in other sizes and is hashed."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._block = memoryview(b"")

    @property
    def sha1(self) -> str:
        """SHA-1 of everything that was read."""
        return self._digest.hexdigest()

    def take(self, count: int) -> bytes:
        """Return exactly `count` bytes. Raises BundleError if the stream ends early."""
        pieces: list[memoryview] = []
        while count:
            if not self._block:
                block = next(self._blocks, None)
                if block is None:
                    raise BundleError("the tar in the bundle ends too early")
                self._digest.update(block)
                self._block = memoryview(block)
            piece = self._block[:count]
            self._block = self._block[count:]
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def finish(self) -> None:
        """Read the end, which must be zeros. Raises BundleError for anything else."""
        size = len(self._block)
        block = bytes(self._block)
        while True:
            if size > MOST_PADDING_BYTES or block.strip(b"\0"):
                raise BundleError("the tar in the bundle has data after its only member")
            following = next(self._blocks, None)
            if following is None:
                return
            self._digest.update(following)
            block, size = following, size + len(following)
