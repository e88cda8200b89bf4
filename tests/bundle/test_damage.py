"""Whatever is wrong with a bundle is refused, named, and leaves no file."""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from imagepipe.bundle import tarball
from imagepipe.bundle.cipher import Secret, encrypted
from imagepipe.bundle.deflate import gzipped
from imagepipe.bundle.manifest import Manifest, addressed, find_secret
from imagepipe.bundle.parts import LARGEST_PART_BYTES
from imagepipe.bundle.tarball import Member, head, tail
from imagepipe.bundle.unpack import unpack
from imagepipe.bundle.verify import verify_image, verify_parts
from imagepipe.errors import BundleError
from tests.bundle.samples import Memory, bundle_of, bundle_secret, ec2_key, extents, packed, recipients, unpacked

FIRST, SECOND = "image.part.00", "image.part.01"


@pytest.fixture(scope="module")
def two_parts() -> Memory:
    return packed(os.urandom(12 << 20))


def _flip(bundle: Memory) -> None:
    part = bytearray(bundle.files[FIRST])
    part[5000] ^= 1
    bundle.files[FIRST] = bytes(part)


def _swap(bundle: Memory) -> None:
    bundle.files[FIRST], bundle.files[SECOND] = bundle.files[SECOND], bundle.files[FIRST]


def _shorten(bundle: Memory) -> None:
    bundle.files[SECOND] = bundle.files[SECOND][:-16]


def _lengthen(bundle: Memory) -> None:
    bundle.files[SECOND] += b"more"


def _inflate(bundle: Memory) -> None:
    bundle.files[FIRST] = bytes(LARGEST_PART_BYTES + 1)


OF_PARTS = {
    "a flipped bit": (_flip, "part image.part.00 is damaged: 10485760 bytes with SHA-1 .{40}, but the manifest has"),
    "a missing part": (lambda bundle: bundle.files.pop(SECOND), "part image.part.01 is missing"),
    "swapped parts": (_swap, "part image.part.00 is damaged"),
    "a truncated last part": (_shorten, "part image.part.01 is damaged"),
    "bytes after the last part": (_lengthen, "part image.part.01 is damaged"),
    "a part without end": (_inflate, "part image.part.00 is larger than 64 MiB"),
    "an empty part": (lambda bundle: bundle.files.update({FIRST: b""}), "part image.part.00 is damaged: 0 bytes"),
}


@pytest.mark.parametrize(("damage", "message"), OF_PARTS.values(), ids=OF_PARTS)
def test_damage_of_a_part_names_the_part(
    two_parts: Memory, tmp_path: Path, damage: Callable[[Memory], None], message: str
) -> None:
    bundle = Memory(dict(two_parts.files), two_parts.manifest)
    damage(bundle)
    with pytest.raises(BundleError, match=message):
        unpacked(bundle, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert re.match(message, str(next(verify_parts(bundle.read(), bundle))))


def test_swapped_parts_are_recognised(two_parts: Memory) -> None:
    bundle = Memory(dict(two_parts.files), two_parts.manifest)
    _swap(bundle)
    damage = list(verify_parts(bundle.read(), bundle))
    assert [each.hint for each in damage] == [
        f"it has the bytes of {SECOND}: are the files swapped?",
        f"it has the bytes of {FIRST}: are the files swapped?",
    ]


def test_a_bundled_size_that_is_not_the_parts_is_named(two_parts: Memory, tmp_path: Path) -> None:
    manifest = replace(two_parts.read(), bundled_size=5)
    with pytest.raises(BundleError, match=r"the parts have \d+ bytes, but the manifest has 5"):
        unpacked(two_parts, tmp_path, manifest)
    assert len(list(verify_parts(manifest, two_parts))) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"size": 12 << 19}, "holds an image of 12582912 bytes, but its manifest has 6291456", id="size"),
        pytest.param({"sha1": "0" * 40}, "has SHA-1 .{40}, but the manifest has 0{40}", id="digest"),
    ],
)
def test_a_manifest_that_contradicts_the_image_is_refused(
    two_parts: Memory, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    manifest = replace(two_parts.read(), **change)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=message):
        unpacked(two_parts, tmp_path, manifest)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BundleError, match=message):
        verify_image(manifest, two_parts, bundle_secret(manifest))


def test_somebody_else_s_key_is_refused(two_parts: Memory) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(BundleError, match="decrypt image: it is neither the owner's nor EC2's"):
        find_secret(two_parts.read(), other)


def test_both_recipients_find_the_same_secret(two_parts: Memory) -> None:
    manifest = two_parts.read()
    assert find_secret(manifest, ec2_key()) == find_secret(manifest, recipients().owner.private_key)


def test_a_wrong_aes_key_is_refused(two_parts: Memory, tmp_path: Path) -> None:
    manifest = addressed(two_parts.read(), Secret(bytes(16), bytes(16)), recipients())
    with pytest.raises(BundleError, match="not gzip"):
        unpacked(two_parts, tmp_path, manifest)


def _tar(content: bytes, *, size: int | None = None, after: bytes = b"", ending: bytes | None = None) -> bytes:
    size = len(content) if size is None else size
    begin = head("image", Member(size, extents((0, size))), modified=0)
    return begin + content + after + (tail(len(begin) + len(content) + len(after)) if ending is None else ending)


def _pax(**records: str) -> bytes:
    body = b""
    for key, value in records.items():
        record = f" {key.replace('__', '.')}={value}\n"
        body += f"{len(record) + 2}{record}".encode()
    header = bytearray(head("pax", Member(len(body), extents((0, len(body)))), modified=0))
    return _with_sum(header, kind=b"x") + body.ljust(512, b"\0")


def _with_sum(header: bytearray, *, kind: bytes) -> bytes:
    header[156:157], header[148:156] = kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _sparse(*pairs: tuple[int, int], size: int, told: int | None = None) -> bytes:
    """A sparse tar whose map is as wrong as it likes."""
    begin = bytearray(head("image", Member(size, extents(*pairs)), modified=0))
    data = sum(length for _, length in pairs)
    if told is not None:
        begin[124:136] = b"%011o\0" % told
    return _with_sum(begin[:512], kind=b"S") + bytes(begin[512:]) + b"x" * data + bytes(1024)


CONTENT = b"content" * 1000
OF_TARS = {
    "nothing": (b"", "the tar in the bundle ends too early"),
    "no tar": (b"a text" * 1000, "does not contain a tar"),
    "an empty tar": (bytes(10240), "not a tar|a wrong checksum|type"),
    "an end within the data": (_tar(CONTENT)[:3000], "ends too early"),
    "a second member": (_tar(CONTENT, after=b"\0" * (-7000 % 512) + _tar(b"second")), "after its only member"),
    "something in the padding": (_tar(CONTENT, ending=b"x".ljust(1024, b"\0")), "the padding of the member"),
    "trailing data": (_tar(CONTENT) + b"x", "after its only member"),
    "zeros without end": (_tar(CONTENT) + bytes(2 << 20), "after its only member"),
    "a folder": (_with_sum(bytearray(_tar(CONTENT)[:512]), kind=b"5"), "type b'5'"),
    "a link": (_with_sum(bytearray(_tar(CONTENT)[:512]), kind=b"2"), "type b'2'"),
    "a member larger than the manifest says": (_tar(CONTENT + b"more"), "holds an image of 7004 bytes"),
    "a member that says more than it has": (_tar(CONTENT, size=1 << 33), "holds an image of 8589934592 bytes"),
    "extents out of order": (_sparse((4096, 10), (0, 10), size=7000), "not in order"),
    "extents that overlap": (_sparse((0, 20), (10, 20), size=7000), "not in order"),
    "an extent beyond the image": (_sparse((6990, 100), size=7000), "beyond the image"),
    "a map that is not the size": (_sparse((0, 20), size=7000, told=512), "does not match its size"),
    "sparse in the PAX form": (_pax(GNU__sparse__major="1") + _tar(CONTENT), "uses PAX.s sparse format"),
    "a PAX size that is none": (_pax(size="many") + _tar(CONTENT), "damaged PAX"),
    "PAX records of a wrong length": (
        _with_sum(bytearray(_tar(CONTENT)[:512]), kind=b"x") + b"99999 size=7\n".ljust(7168, b"\0"),
        "damaged PAX",
    ),
    "PAX records without end": (
        _with_sum(bytearray(head("x", Member(1 << 30, extents((0, 1 << 30))), modified=0)), kind=b"x"),
        "too long a name",
    ),
    "a number that is none": (_with_sum(bytearray(_tar(CONTENT)[:124] + b"9" * 12 + _tar(CONTENT)[136:512]), kind=b"0"),
                              "is not a number"),
    "a negative number": (_with_sum(bytearray(_tar(CONTENT)[:124] + b"\xff" * 12 + _tar(CONTENT)[136:512]), kind=b"0"),
                          "is not a number"),
}  # fmt: skip


@pytest.mark.parametrize(("tar", "message"), OF_TARS.values(), ids=OF_TARS)
def test_a_tar_that_is_not_an_image_is_refused(tmp_path: Path, tar: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        unpacked(bundle_of(tar, size=len(CONTENT)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_map_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tarball, "MAX_EXTENTS", 100)
    empty = bytearray(512)
    empty[504] = 1
    begin = bytearray(head("image", Member(7000, ()), modified=0))
    begin[482] = 1
    tar = _with_sum(begin, kind=b"S") + bytes(empty) * 200
    with pytest.raises(BundleError, match="too long"):
        unpacked(bundle_of(tar, size=7000), tmp_path)


def test_pax_records_before_the_member_are_understood(tmp_path: Path) -> None:
    assert unpacked(bundle_of(_pax(size="7000", mtime="1.5") + _tar(CONTENT), size=7000), tmp_path) == CONTENT


def _unpadded(blocks: Iterable[bytes], secret: Secret) -> Iterable[bytes]:
    """Without the padding: whole blocks only."""
    whole = b"".join(encrypted(blocks, secret))
    return [whole[:-16]]


def _ragged(blocks: Iterable[bytes], secret: Secret) -> Iterable[bytes]:
    return [*encrypted(blocks, secret), b"x"]


STEPS: dict[str, tuple[dict[str, Callable[..., object]], str]] = {
    "no gzip": ({"gzip": lambda tar: tar}, "not gzip"),
    "gzip that ends early": ({"gzip": lambda tar: gzip.compress(tar)[:-20]}, "middle of its gzip stream"),
    "bytes after gzip": ({"gzip": lambda tar: gzip.compress(tar) + b"more of it"}, "not gzip"),
    "a wrong checksum in gzip": ({"gzip": lambda tar: gzip.compress(tar)[:-8] + bytes(8)}, "not gzip"),
    "no padding of AES": ({"cipher": _unpadded}, "padding"),
    "half a block of AES": ({"cipher": _ragged}, "whole number of AES blocks"),
}


@pytest.mark.parametrize(("steps", "message"), STEPS.values(), ids=STEPS)
def test_a_bundle_that_was_made_wrong_is_refused(
    tmp_path: Path, steps: dict[str, Callable[..., object]], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        unpacked(bundle_of(_tar(CONTENT), size=len(CONTENT), **steps), tmp_path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_several_gzip_members_are_read(tmp_path: Path) -> None:
    tar = _tar(CONTENT)
    bundle = bundle_of(tar, size=7000, gzip=lambda tar: gzip.compress(tar[:3000]) + gzip.compress(tar[3000:]))
    assert unpacked(bundle, tmp_path) == CONTENT


def test_a_bomb_writes_nothing_beyond_the_size_of_the_image(tmp_path: Path) -> None:
    """300 MiB of zeros in 300 kB, after an image of 7,000 bytes."""
    bomb = bundle_of(_tar(CONTENT), size=7000, gzip=lambda tar: b"".join(gzipped([tar, *[bytes(1 << 20)] * 300])))
    target = tmp_path / "image"
    largest = 0

    def watch(_: int) -> None:
        nonlocal largest
        largest = max(largest, *(path.stat().st_size for path in tmp_path.iterdir()))

    with pytest.raises(BundleError, match="after its only member"):
        unpack(bomb.read(), bomb, bundle_secret(bomb.read()), target, progress=watch)
    assert (largest, list(tmp_path.iterdir())) == (7000, [])


def test_an_image_that_is_there_is_replaced_only_with_force(tmp_path: Path) -> None:
    bundle = packed(b"new")
    target = tmp_path / "image"
    target.write_bytes(b"old")

    def once(*, is_forced: bool) -> None:
        unpack(bundle.read(), bundle, bundle_secret(bundle.read()), target, is_forced=is_forced)

    with pytest.raises(BundleError, match="already exists"):
        once(is_forced=False)
    assert target.read_bytes() == b"old"
    once(is_forced=True)
    assert target.read_bytes() == b"new"


def test_an_interrupted_unpacking_leaves_no_file_and_keeps_the_old_one(two_parts: Memory, tmp_path: Path) -> None:
    target = tmp_path / "image"
    target.write_bytes(b"old")

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    manifest = two_parts.read()
    with pytest.raises(KeyboardInterrupt):
        unpack(manifest, two_parts, bundle_secret(manifest), target, is_forced=True, progress=stop)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_what_a_source_raises_comes_through(two_parts: Memory, tmp_path: Path) -> None:
    def broken(_: str) -> Iterable[bytes]:
        raise ConnectionError("the line broke")

    manifest: Manifest = two_parts.read()
    with pytest.raises(ConnectionError, match="the line broke"):
        unpack(manifest, broken, bundle_secret(manifest), tmp_path / "image")
    assert list(tmp_path.iterdir()) == []
