"""Pack an image into a bundle: tar, deflate, encrypt and split it in one pipeline with a few blocks in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import closing

from imagepipe.bundle import tarball
from imagepipe.bundle.cipher import Secret, encrypted
from imagepipe.bundle.deflate import gzipped, worst_case
from imagepipe.bundle.flow import BLOCK_BYTES, ahead
from imagepipe.bundle.manifest import Label, Manifest, Recipients, assemble, check_label, write_manifest
from imagepipe.bundle.parts import Part, PartSink, cut, width_for
from imagepipe.bundle.sparse import Image
from imagepipe.errors import BundleError

EC2_LIMIT_BYTES = 10 << 30
"""Largest instance-store image that EC2 boots (EC2 user guide)."""


def pack(
    image: Image,
    sink: PartSink,
    *,
    label: Label,
    recipients: Recipients,
    secret: Secret | None = None,
    limit_bytes: int | None = EC2_LIMIT_BYTES,
    progress: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Pack the image into the sink, the manifest last, and return the manifest.

    With the same secret, the same image gives the same parts; by default a new secret is made. `progress` is called
    with the number of bytes of data packed since its last call; an exception from it ends the packing. Raises
    BundleError.
    """
    check_label(label)
    check_size(image.size, label.name, limit_bytes)
    secret = secret or Secret.new()
    parts: list[Part] = []
    bundled_size = 0
    tar = _Tar(image, label.name)
    width = width_for(worst_case(tar.size))
    with closing(ahead(tar.blocks(), depth=4)) as blocks, closing(gzipped(blocks)) as deflated:
        for part, content in cut(encrypted(deflated, secret), label.name, width=width):
            sink.put(part, content)
            parts.append(part)
            bundled_size += len(content)
            progress(tar.take_progress())
    progress(tar.take_progress())
    manifest = assemble(
        label,
        size=image.size,
        sha1=tar.sha1,
        parts=parts,
        bundled_size=bundled_size,
        secret=secret,
        recipients=recipients,
    )
    sink.finish(manifest.filename, write_manifest(manifest, recipients.owner.private_key))
    return manifest


def check_size(size: int, name: str, limit_bytes: int | None = EC2_LIMIT_BYTES) -> None:
    """Raise BundleError if an image is larger than EC2 allows."""
    if not size:
        raise BundleError(f"packing {name}: the image is empty")
    if limit_bytes is not None and size > limit_bytes:
        raise BundleError(
            f"packing {name}: the image has {size / (1 << 30):.1f} GiB; EC2's limit is {limit_bytes / (1 << 30):.0f}",
            hint="make the disk smaller, as empty space counts too; or pass --any-size if EC2 need not read it",
        )


class _Tar:
    """The image as a tar, with the digest of the bytes that were read from it."""

    def __init__(self, image: Image, name: str) -> None:
        member = tarball.Member(image.size, image.extents)
        self._image = image
        self._head = tarball.head(name, member, modified=image.modified)
        self._tail = tarball.tail(len(self._head) + member.data_bytes)
        self._digest = hashlib.sha1(usedforsecurity=False)
        self._read = self._reported = 0
        self.size = len(self._head) + member.data_bytes + len(self._tail)

    @property
    def sha1(self) -> str:
        return self._digest.hexdigest()

    def take_progress(self) -> int:
        """Return the number of bytes of the image's data that were read since the last call."""
        news, self._reported = self._read - self._reported, self._read
        return news

    def blocks(self) -> Generator[bytes, None, None]:
        """Yield the tar in blocks of one to two times BLOCK_BYTES, for any extents; the last block may be smaller."""
        pieces: list[bytes] = []
        size = 0
        for piece in self._pieces():
            pieces.append(piece)
            size += len(piece)
            if size >= BLOCK_BYTES:
                yield self._hashed(_joined(pieces))
                pieces, size = [], 0
        if pieces:
            yield self._hashed(_joined(pieces))

    def _pieces(self) -> Generator[bytes, None, None]:
        yield self._head
        for extent in self._image.extents:
            for at in range(extent.offset, extent.end, BLOCK_BYTES):
                wanted = min(BLOCK_BYTES, extent.end - at)
                piece = self._image.read(at, wanted)
                if len(piece) != wanted:
                    raise BundleError(f"reading {wanted} bytes at {at} of the image returned {len(piece)}")
                self._read += len(piece)
                yield piece
        yield self._tail

    def _hashed(self, block: bytes) -> bytes:
        self._digest.update(block)
        return block


def _joined(pieces: list[bytes]) -> bytes:
    """Join small blocks; large extents come in whole blocks and are not copied."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
