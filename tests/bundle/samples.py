"""What the tests of bundles share: the samples with their keys, a sink and source in memory, images of a few bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from imagepipe.bundle.certificates import load_certificate, load_owner, load_private_key
from imagepipe.bundle.cipher import Secret, encrypted
from imagepipe.bundle.deflate import gzipped
from imagepipe.bundle.extents import Extent, merged, nonzero_runs
from imagepipe.bundle.manifest import Label, Manifest, Recipients, assemble, find_secret, read_manifest, write_manifest
from imagepipe.bundle.pack import pack
from imagepipe.bundle.parts import Part, cut
from imagepipe.bundle.sparse import Image
from imagepipe.bundle.unpack import unpack
from imagepipe.errors import BundleError

CASES = Path(__file__).resolve().parents[1] / "cases/bundle"
ACCOUNT = "123456789012"
LABEL = Label("image", ACCOUNT)
DIGESTS = {name: digest for digest, name in map(str.split, (CASES / "image.sha256").read_text().splitlines())}


@cache
def recipients() -> Recipients:
    owner = load_owner(CASES / "user-cert.pem", CASES / "user-key.pem")
    return Recipients(owner, load_certificate(CASES / "ec2-cert.pem"))


@cache
def ec2_key() -> RSAPrivateKey:
    return load_private_key(CASES / "ec2-key.pem")


@dataclass
class Memory:
    """A sink that keeps a bundle, and the source that gives it back."""

    files: dict[str, bytes] = field(default_factory=dict)
    manifest: bytes = b""

    def put(self, part: Part, content: bytes) -> None:
        assert not self.manifest
        self.files[part.filename] = content

    def finish(self, filename: str, manifest: bytes) -> None:
        assert filename == "image.manifest.xml"
        self.manifest = manifest

    def __call__(self, filename: str) -> Iterable[bytes]:
        if filename not in self.files:
            raise BundleError(f"part {filename} is missing")
        return [self.files[filename]]

    def read(self) -> Manifest:
        return read_manifest(self.manifest)


def image_of(content: bytes, *, least_hole: int = 4096) -> Image:
    """An image in memory."""
    extents = tuple(merged(nonzero_runs(content), least_hole=least_hole))
    return Image(len(content), extents, lambda at, count: content[at : at + count])


def packed(content: bytes) -> Memory:
    memory = Memory()
    pack(image_of(content), memory, label=LABEL, recipients=recipients())
    return memory


def unpacked(bundle: Memory, folder: Path, manifest: Manifest | None = None) -> bytes:
    target = folder / "unpacked"
    secret = bundle_secret(manifest or bundle.read())
    unpack(manifest or bundle.read(), bundle, secret, target, is_forced=True)
    return target.read_bytes()


def bundle_secret(manifest: Manifest) -> Secret:

    return find_secret(manifest, recipients().owner.private_key)


def bundle_of(
    tar: bytes,
    *,
    size: int,
    gzip: Callable[[bytes], bytes] = lambda tar: b"".join(gzipped([tar])),
    cipher: Callable[[Iterable[bytes], Secret], Iterable[bytes]] = encrypted,
) -> Memory:
    """A bundle whose digests are right, of a tar and steps that need not be."""
    memory, secret = Memory(), Secret.new()
    parts = []
    for part, content in cut(cipher([gzip(tar)], secret), LABEL.name, width=2):
        memory.put(part, content)
        parts.append(part)
    manifest = assemble(
        LABEL,
        size=size,
        sha1=hashlib.sha1(tar).hexdigest(),
        parts=parts,
        bundled_size=sum(map(len, memory.files.values())),
        secret=secret,
        recipients=recipients(),
    )
    memory.manifest = write_manifest(manifest, recipients().owner.private_key)
    return memory


def extents(*pairs: tuple[int, int]) -> tuple[Extent, ...]:
    return tuple(Extent(*pair) for pair in pairs)
