"""The manifest: both dialects read, Amazon's written, everything else refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from imagepipe.bundle.cipher import Envelope, Secret
from imagepipe.bundle.document import DEEPEST, LARGEST_BYTES
from imagepipe.bundle.manifest import (
    Label,
    Manifest,
    PartReport,
    addressed,
    assemble,
    find_secret,
    is_signed_by,
    named_parts,
    read_manifest,
    write_manifest,
)
from imagepipe.bundle.parts import PART_BYTES, Part
from imagepipe.errors import BundleError
from tests.bundle.samples import ACCOUNT, CASES, ec2_key, recipients

SHA1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
SECRET = Secret(bytes(range(16)), bytes(range(16, 32)))
EUCA = (CASES / "euca/image.manifest.xml").read_bytes()
AMAZON = (CASES / "ec2-ami-tools/image.manifest.xml").read_bytes()


def _manifest() -> Manifest:
    parts = (Part(0, "image.part.00", SHA1), Part(1, "image.part.01", SHA1[::-1]))
    label = Label("image", ACCOUNT)
    sizes = {"size": 1 << 30, "bundled_size": 12 << 20}
    return assemble(label, sha1=SHA1, parts=parts, secret=SECRET, recipients=recipients(), **sizes)


def _written(manifest: Manifest) -> bytes:
    return write_manifest(manifest, recipients().owner.private_key)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="the least"),
        pytest.param({"block_devices": (("ami", "sda1"), ("ephemeral0", "sdb"), ("root", "/dev/sda1"))}, id="devices"),
        pytest.param({"kernel_id": "aki-12345678", "ramdisk_id": "ari-12345678"}, id="paravirtual"),
        pytest.param({"product_codes": ("774F4FF8", "abc")}, id="product codes"),
        pytest.param({"architecture": "i386"}, id="i386"),
    ],
)
def test_what_is_written_is_read_again(more: dict[str, object]) -> None:
    manifest = replace(_manifest(), **more)  # type: ignore[arg-type]
    document = _written(manifest)
    assert read_manifest(document) == manifest
    assert is_signed_by(document, recipients().owner.certificate)


def test_it_is_written_as_every_reader_takes_it() -> None:
    document = _written(_manifest()).decode("ascii")
    assert document.startswith("<?xml version='1.0'?><manifest><version>2007-10-10</version><bundler><name>imagepipe")
    assert re.search(r">\s|\s<|\"", document) is None
    assert re.findall(r"<(\w+)", document.partition("<image>")[2])[:13] == [
        *("name", "user", "type", "digest", "size", "bundled_size"),
        *("ec2_encrypted_key", "user_encrypted_key", "ec2_encrypted_iv", "user_encrypted_iv", "parts", "part"),
        "filename",
    ]


def test_devices_are_sorted_and_the_virtual_name_comes_first() -> None:
    document = _written(replace(_manifest(), block_devices=(("root", "/dev/sda1"), ("ami", "sda1")))).decode()
    assert "<block_device_mapping><mapping><virtual>ami</virtual><device>sda1</device></mapping><mapping>" in document


def test_for_another_region_only_the_encrypted_fields_and_the_signature_change() -> None:
    manifest = _manifest()
    other = addressed(manifest, find_secret(manifest, recipients().owner.private_key), recipients())
    fields = re.compile(rb"<(\w+_encrypted_(?:key|iv)|signature)[^>]*>[0-9a-f]+</\1>")
    first, second = _written(manifest), _written(other)
    assert first != second
    assert fields.sub(rb"<\1>", first) == fields.sub(rb"<\1>", second)
    assert find_secret(other, ec2_key()) == SECRET
    assert is_signed_by(second, recipients().owner.certificate)


def test_a_secret_and_a_key_show_nothing_of_themselves() -> None:
    assert repr(SECRET) == "Secret()"
    assert "rsa" not in repr(recipients()).lower()


CHANGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "nothing": (lambda _: b"", "not XML"),
    "no XML": (lambda _: b"a text", "not XML"),
    "half of it": (lambda text: text[: len(text) // 2], "not XML"),
    "too large": (lambda text: text + b" " * LARGEST_BYTES, "larger than 16 MiB"),
    "too deep": (lambda _: b"<a>" * DEEPEST + b"<a>", "nested too deeply"),
    "a DOCTYPE": (lambda text: text.replace(b"<manifest>", b"<!DOCTYPE manifest><manifest>"), "has a DOCTYPE"),
    "an entity": (
        lambda text: text.replace(b"<manifest>", b'<!DOCTYPE m [<!ENTITY a SYSTEM "file:///etc/hosts">]><manifest>'),
        "has a DOCTYPE",
    ),
    "an entity that nobody declared": (lambda text: text.replace(b">image<", b">&image;<", 1), "not XML"),
    "a comment": (lambda text: text.replace(b"<image>", b"<!-- x --><image>"), "has a comment"),
    "a processing instruction": (lambda text: text.replace(b"<image>", b"<?x y?><image>"), "processing instruction"),
    "a CDATA section": (lambda text: text.replace(b">machine<", b"><![CDATA[machine]]><"), "CDATA"),
    "another root": (lambda text: text.replace(b"manifest>", b"other>"), "not a bundle's manifest"),
    "another version": (lambda text: text.replace(b"2007-10-10", b"2049-10-10"), "not a bundle's manifest"),
    "no image": (lambda text: text.replace(b"image>", b"picture>"), "has no <image> in <manifest>"),
    "two images": (lambda text: text.replace(b"<image>", b"<image></image><image>"), "<image> several times"),
    "two sizes": (lambda text: text.replace(b"<size>", b"<size>1</size><size>"), "<size> several times"),
    "no digest": (lambda text: text.replace(b"digest", b"digets"), "has no <digest>"),
    "another algorithm": (lambda text: text.replace(b"SHA1", b"MD5"), "'MD5' for its algorithm"),
    "a digest that is none": (lambda text: text.replace(b"f0c60317", b"ghijklmn"), "its image digest"),
    "a part's digest that is none": (lambda text: text.replace(b"d23eb325", b""), "digest of part 1"),
    "a negative size": (lambda text: text.replace(b">12582912<", b">-1<"), "'-1' for its size"),
    "a size in words": (lambda text: text.replace(b">12582912<", b">much<"), "'much' for its size"),
    "a size beyond belief": (lambda text: text.replace(b">12582912<", b">9999999999999<"), "9{13} for its size"),
    "a size of many digits": (lambda text: text.replace(b">12582912<", b">" + b"9" * 5000 + b"<"), "for its size"),
    "no bundled size": (lambda text: text.replace(b">12585024<", b">0<"), "0 for its bundled size"),
    "an account with dashes": (lambda text: text.replace(b">123456789012<", b">1234-5678-9012<"), "for its account"),
    "another architecture": (lambda text: text.replace(b"x86_64", b"arm64"), "'arm64' for its architecture"),
    "a count that is not the parts": (
        lambda text: text.replace(b'count="2"', b'count="3"'),
        "2 parts, but its count is 3",
    ),
    "no parts": (
        lambda text: re.sub(rb"<parts.*</parts>", b"<parts count='0'></parts>", text),
        "has no parts",
    ),
    "a part twice": (lambda text: text.replace(b'index="1"', b'index="0"'), "no part 1, or it has part 0 twice"),
    "a part left out": (lambda text: text.replace(b'index="1"', b'index="2"'), "no part 1, or it has part 2 twice"),
    "an index in words": (lambda text: text.replace(b'index="1"', b'index="one"'), "'one' for its index"),
    "one file for two parts": (lambda text: text.replace(b"part.01", b"part.00"), "have the same filename"),
    "a key in no hex": (lambda text: text.replace(b">192a53436f", b">zzzzzzzzzz"), "encrypted key or IV"),
    "a key of one byte": (lambda text: re.sub(rb">192a53436f\w+<", b">19<", text), "encrypted key or IV"),
    "a device to break out": (
        lambda text: text.replace(
            b"</architecture>",
            b"</architecture><block_device_mapping><mapping><virtual>&lt;x</virtual><device>a</device></mapping>"
            b"</block_device_mapping>",
        ),
        "machine configuration",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_is_no_manifest_is_refused(change: Callable[[bytes], bytes], message: str) -> None:
    changed = change(EUCA)
    assert changed != EUCA
    with pytest.raises(BundleError, match=message):
        read_manifest(changed)


@pytest.mark.parametrize(
    "name",
    ["../image.part.00", "/etc/passwd", "a/b", "..", ".", "-rf", "", "a b", "a\u00e9", "a\\b", "x" * 201, "a&#10;"],
)
def test_a_part_that_would_be_elsewhere_is_refused(name: str) -> None:
    document = EUCA.replace(b"encoding='ASCII'", b"encoding='UTF-8'").replace(b"image.part.00", name.encode())
    if name == "a&#10;":
        assert read_manifest(document).parts[0].filename == "a"  # white space around a value is none of it
        return
    with pytest.raises(BundleError, match="filename of part 0"):
        read_manifest(document)


@pytest.mark.parametrize("name", ["../image", "-image", "im age", "..", ""])
def test_an_image_that_would_be_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BundleError, match="cannot be called"):
        read_manifest(EUCA.replace(b"<name>image<", f"<name>{name}<".encode()))
    with pytest.raises(BundleError, match="cannot be called"):
        _written(replace(_manifest(), name=name))


def test_a_name_that_no_tar_takes_is_refused() -> None:
    with pytest.raises(BundleError, match="for its name"):
        _written(replace(_manifest(), name="x" * 100))


def test_white_space_between_elements_is_read() -> None:
    assert read_manifest(EUCA.replace(b"><", b">\n  <")) == read_manifest(EUCA)


@pytest.mark.parametrize("document", [EUCA, AMAZON], ids=["euca2ools", "ec2-ami-tools"])
def test_a_changed_manifest_is_not_signed(document: bytes) -> None:
    owner = recipients().owner.certificate
    assert is_signed_by(document, owner)
    assert not is_signed_by(document.replace(b">123456789012<", b">123456789013<"), owner)
    assert not is_signed_by(document.replace(b"x86_64", b"i386"), owner)
    assert not is_signed_by(re.sub(rb"<signature>\w+<", b"<signature>no<", document), owner)


def test_what_is_signed_must_be_what_is_read() -> None:
    """A second element of the name, whatever its attributes, could be the one that is read."""
    signed = EUCA[EUCA.index(b"<image>") : EUCA.index(b"</image>") + 8]
    other = EUCA.replace(b"<image>", b"<other>" + signed + b"</other><image >").replace(b">12582912<", b">1<")
    with pytest.raises(BundleError, match="it is unclear what was signed"):
        is_signed_by(other, recipients().owner.certificate)


REPORTS = [PartReport(0, PART_BYTES, SHA1), PartReport(1, 100, SHA1)]


def test_parts_that_were_made_elsewhere_get_their_names() -> None:
    parts, size = named_parts(reversed(REPORTS), "web", width=4)
    assert [part.filename for part in parts] == ["web.part.0000", "web.part.0001"]
    assert size == PART_BYTES + 100


@pytest.mark.parametrize(
    ("reports", "message"),
    [
        pytest.param([], "no part of web was reported", id="none"),
        pytest.param(REPORTS[1:], "part 0 of web was not reported", id="the first is missing"),
        pytest.param([*REPORTS, REPORTS[0]], "or part 0 twice", id="one twice"),
        pytest.param([PartReport(0, 0, SHA1)], "reported with 0 bytes", id="an empty one"),
        pytest.param([PartReport(0, PART_BYTES + 1, SHA1)], "reported with 10485761 bytes", id="too large"),
        pytest.param([PartReport(0, 5, SHA1), REPORTS[1]], "reported with 5 bytes", id="a short one in the middle"),
        pytest.param([PartReport(0, 5, "x'/>")], "as its SHA-1", id="no digest"),
    ],
)
def test_reports_that_are_no_bundle_are_refused(reports: list[PartReport], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        named_parts(reports, "web", width=2)


def test_nothing_can_be_written_into_a_manifest_that_would_end_a_value() -> None:
    for change in (
        {"kernel_id": "aki'><x"},
        {"product_codes": ("<",)},
        {"for_ec2": Envelope("<" * 128, "0" * 128)},
        {"parts": (Part(0, "a'b", SHA1),)},
        {"account": "12345678901<"},
    ):
        with pytest.raises(BundleError, match="the manifest cannot have"):
            _written(replace(_manifest(), **change))
