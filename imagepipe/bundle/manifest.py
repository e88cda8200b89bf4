"""The manifest of a bundle: read it in both dialects, write it in Amazon's, sign and verify it.

We write single quotes, elements in Amazon's order, and no white space between them. Then every reader accepts it, even
the signature check of ec2-ami-tools, which serializes the elements again before it verifies them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA1

from imagepipe import __version__
from imagepipe.bundle.certificates import Certificate, Owner
from imagepipe.bundle.cipher import Envelope, Secret, seal, unseal
from imagepipe.bundle.document import Element, parse_xml
from imagepipe.bundle.parts import NAME, PART_BYTES, Part, check_name, part_name
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError

VERSION = "2007-10-10"
ARCHITECTURES = ("i386", "x86_64")
LONGEST_NAME = 99
"""Longest name: a tar's field has 100 bytes, and some readers need a zero at its end."""
ACCOUNT = re.compile(r"\d{12}\Z")
LARGEST_IMAGE_BYTES = 1 << 40
"""Largest image size that is accepted in a manifest."""
_SHA1 = re.compile(r"[0-9a-f]{40}\Z")
_PLAIN = re.compile(r"[\w./ -]*\Z", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-fA-F]{2}){64,1024}\Z")
_SIGNED = ("machine_configuration", "image")


@dataclass(frozen=True, slots=True)
class Label:
    """The name, account and architecture of a bundle."""

    name: str
    """Name of the bundle, and of the file that unpacking creates."""
    account: str
    """Account that will register it, twelve digits."""
    architecture: str = "x86_64"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of a manifest."""

    name: str
    account: str
    """Account of the image, twelve digits."""
    architecture: str
    size: int
    """Size of the raw image in bytes."""
    sha1: str
    """SHA-1 of the tar, before gzip and encryption, in lower-case hex."""
    bundled_size: int
    """Size of all parts in bytes."""
    parts: Sequence[Part]
    """Parts in order, numbered from 0."""
    for_user: Envelope
    for_ec2: Envelope
    block_devices: Sequence[tuple[str, str]] = ()
    """Pairs of virtual name and device: `("ephemeral0", "sdb")`."""
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    product_codes: Sequence[str] = ()
    bundler: str = f"imagepipe {__version__}"
    """Program that made the bundle."""

    @property
    def filename(self) -> str:
        return f"{self.name}.manifest.xml"


@dataclass(frozen=True, slots=True)
class PartReport:
    """A report about a part that was made elsewhere."""

    index: int
    size: int
    sha1: str


@dataclass(frozen=True, slots=True)
class Recipients:
    """The recipients of a bundle: its owner, who also signs it, and EC2 in one region."""

    owner: Owner
    ec2: Certificate


def check_label(label: Label) -> None:
    """Raise BundleError if the name, account or architecture is invalid."""
    check_name(label.name)
    if len(label.name) > LONGEST_NAME:
        _refuse("name", label.name, f"a name has at most {LONGEST_NAME} characters, because of tar")
    if not ACCOUNT.match(label.account):
        _refuse("account", label.account, "an account is twelve digits, without dashes")
    if label.architecture not in ARCHITECTURES:
        _refuse("architecture", label.architecture, f"an instance-store image is {' or '.join(ARCHITECTURES)}")


def assemble(
    label: Label,
    *,
    size: int,
    sha1: str,
    parts: Sequence[Part],
    bundled_size: int,
    secret: Secret,
    recipients: Recipients,
) -> Manifest:
    """Assemble the manifest of parts that were encrypted with this secret, here or elsewhere (`named_parts`).

    `size` is the size of the raw image; `sha1` is the digest of the tar.
    """
    nobody = Envelope("", "")
    manifest = Manifest(
        name=label.name,
        account=label.account,
        architecture=label.architecture,
        size=size,
        sha1=sha1,
        bundled_size=bundled_size,
        parts=tuple(parts),
        for_user=nobody,
        for_ec2=nobody,
    )
    return addressed(manifest, secret, recipients)


def named_parts(reports: Iterable[PartReport], name: str, *, width: int) -> tuple[tuple[Part, ...], int]:
    """Name reported parts and sum their sizes. Raises BundleError if one is missing or duplicate."""
    ordered = sorted(reports, key=lambda report: report.index)
    last = len(ordered) - 1
    for number, report in enumerate(ordered):
        if report.index != number:
            raise BundleError(f"part {number} of {name} was not reported, or part {report.index} twice")
        if not 0 < report.size <= PART_BYTES or (number < last and report.size != PART_BYTES):
            raise BundleError(f"part {number} of {name} was reported with {report.size} bytes")
        if not _SHA1.match(report.sha1):
            raise BundleError(f"part {number} of {name} was reported with {report.sha1!r} as its SHA-1")
    if not ordered:
        raise BundleError(f"no part of {name} was reported")
    parts = (Part(each.index, part_name(name, each.index, width=width), each.sha1) for each in ordered)
    return tuple(parts), sum(each.size for each in ordered)


def addressed(manifest: Manifest, secret: Secret, recipients: Recipients) -> Manifest:
    """Return the manifest of the same parts for other recipients, such as EC2 in another region."""
    owner, ec2 = recipients.owner.certificate.public_key, recipients.ec2.public_key
    return replace(manifest, for_user=seal(secret, owner), for_ec2=seal(secret, ec2))


def find_secret(manifest: Manifest, private_key: RSAPrivateKey) -> Secret:
    """Decrypt the secret of a bundle with its owner's key or EC2's. Raises BundleError."""
    secret = unseal(manifest.for_user, private_key) or unseal(manifest.for_ec2, private_key)
    if secret is None:
        raise BundleError(
            f"this private key cannot decrypt {manifest.name}: it is neither the owner's nor EC2's",
            hint="use the private key of the certificate that it was packed with",
        )
    return secret


def write_manifest(manifest: Manifest, signer: RSAPrivateKey) -> bytes:
    """Return the signed document. Raises BundleError for an invalid value."""
    _check(manifest)
    machine = _element("machine_configuration", *_machine(manifest))
    image = _element("image", *_image(manifest))
    signature = signer.sign((machine + image).encode("ascii"), PKCS1v15(), SHA1())  # noqa: S303 - required by the format
    bundler = _element(
        "bundler", _element("name", "imagepipe"), _element("version", __version__), _element("release", "0")
    )
    body = (_element("version", VERSION), bundler, machine, image, _element("signature", signature.hex()))
    return ("<?xml version='1.0'?>" + _element("manifest", *body)).encode("ascii")


def read_manifest(document: bytes) -> Manifest:
    """Read a manifest in either dialect and check its values, but not its signature. Raises BundleError."""
    root = parse_xml(document)
    if root.tag != "manifest" or root.one("version").text.strip() != VERSION:
        raise BundleError(f"this is not a bundle's manifest: it has no <manifest> of version {VERSION}")
    machine, image = (root.one(tag) for tag in _SIGNED)
    parts = image.one("parts")
    found = [_part(element) for element in parts.all("part")]
    if parts.attributes.get("count") != str(len(found)):
        raise BundleError(f"the manifest lists {len(found)} parts, but its count is {parts.attributes.get('count')}")
    bundler = root.optional("bundler")
    manifest = Manifest(
        name=_text(image, "name"),
        account=_text(image, "user"),
        architecture=_text(machine, "architecture"),
        size=_number(image, "size"),
        sha1=_digest(image),
        bundled_size=_number(image, "bundled_size"),
        parts=tuple(sorted(found, key=lambda part: part.index)),
        for_user=Envelope(_text(image, "user_encrypted_key"), _text(image, "user_encrypted_iv")),
        for_ec2=Envelope(_text(image, "ec2_encrypted_key"), _text(image, "ec2_encrypted_iv")),
        block_devices=tuple(_mappings(machine)),
        kernel_id=_optional(machine, "kernel_id"),
        ramdisk_id=_optional(machine, "ramdisk_id"),
        product_codes=tuple(
            code.text.strip() for codes in machine.all("product_codes") for code in codes.all("product_code")
        ),
        bundler=" ".join(each.text.strip() for each in bundler.children[:2]) if bundler else "",
    )
    _check(manifest)
    return manifest


def is_signed_by(document: bytes, certificate: Certificate) -> bool:
    """Return whether the certificate's key signed these exact bytes. Raises BundleError.

    The signature tells a user who made the bundle; EC2 does not check it.
    """
    signature = parse_xml(document).one("signature").text.strip()
    try:
        certificate.public_key.verify(
            bytes.fromhex(signature),
            b"".join(_as_it_stands(document, tag) for tag in _SIGNED),
            PKCS1v15(),
            SHA1(),  # noqa: S303 - required by the format
        )
    except (InvalidSignature, ValueError):
        return False
    return True


def _as_it_stands(document: bytes, tag: str) -> bytes:
    """Return the bytes of an element. Raises BundleError if it does not occur exactly once.

    If it occurred twice, the signed element could differ from the one that is parsed.
    """
    begin, end = f"<{tag}>".encode(), f"</{tag}>".encode()
    if document.count(begin) != 1 or document.count(end) != 1 or document.count(b"<" + tag.encode()) != 1:
        raise BundleError(f"the manifest must have exactly one plain <{tag}>; otherwise it is unclear what was signed")
    return document[document.index(begin) : document.index(end) + len(end)]


def _machine(manifest: Manifest) -> Iterator[str]:
    yield _element("architecture", manifest.architecture)
    if manifest.block_devices:
        mappings = (
            _element("mapping", _element("virtual", virtual), _element("device", device))
            for virtual, device in sorted(manifest.block_devices)
        )
        yield _element("block_device_mapping", *mappings)
    if manifest.kernel_id:
        yield _element("kernel_id", manifest.kernel_id)
    if manifest.ramdisk_id:
        yield _element("ramdisk_id", manifest.ramdisk_id)
    if manifest.product_codes:
        yield _element("product_codes", *(_element("product_code", code) for code in manifest.product_codes))


def _image(manifest: Manifest) -> Iterator[str]:
    yield _element("name", manifest.name)
    yield _element("user", manifest.account)
    yield _element("type", "machine")
    yield _element("digest", manifest.sha1, algorithm="SHA1")
    yield _element("size", str(manifest.size))
    yield _element("bundled_size", str(manifest.bundled_size))
    yield _element("ec2_encrypted_key", manifest.for_ec2.key, algorithm="AES-128-CBC")
    yield _element("user_encrypted_key", manifest.for_user.key, algorithm="AES-128-CBC")
    yield _element("ec2_encrypted_iv", manifest.for_ec2.iv)
    yield _element("user_encrypted_iv", manifest.for_user.iv)
    parts = (
        _element(
            "part",
            _element("filename", part.filename),
            _element("digest", part.sha1, algorithm="SHA1"),
            index=str(part.index),
        )
        for part in manifest.parts
    )
    yield _element("parts", *parts, count=str(len(manifest.parts)))


def _element(tag: str, *content: str, **attributes: str) -> str:
    """Format an element. The values were checked, so none needs escaping."""
    words = "".join(f" {name}='{value}'" for name, value in attributes.items())
    return f"<{tag}{words}>{''.join(content)}</{tag}>"


def _check(manifest: Manifest) -> None:
    """Raise BundleError for an invalid value; a manifest may come from anybody."""
    check_label(Label(manifest.name, manifest.account, manifest.architecture))
    if not 0 <= manifest.size <= LARGEST_IMAGE_BYTES:
        _refuse("size", manifest.size)
    if not 0 < manifest.bundled_size <= LARGEST_IMAGE_BYTES:
        _refuse("bundled size", manifest.bundled_size)
    if not _SHA1.match(manifest.sha1):
        _refuse("image digest", manifest.sha1)
    for envelope in (manifest.for_user, manifest.for_ec2):
        if not (_HEX.match(envelope.key) and _HEX.match(envelope.iv)):
            _refuse("encrypted key or IV", f"{envelope.key[:20]}...")
    devices = (word for pair in manifest.block_devices for word in pair)
    for word in (*devices, *manifest.product_codes, manifest.kernel_id or "", manifest.ramdisk_id or ""):
        if not _PLAIN.match(word):
            _refuse("machine configuration", word)
    _check_parts(manifest.parts)


def _check_parts(parts: Sequence[Part]) -> None:
    if not parts:
        raise BundleError("the manifest has no parts")
    for number, part in enumerate(parts):
        if part.index != number:
            raise BundleError(f"the manifest has no part {number}, or it has part {part.index} twice")
        if not NAME.match(part.filename):
            _refuse(f"filename of part {number}", part.filename, "a part must be in the folder of its manifest")
        if not _SHA1.match(part.sha1):
            _refuse(f"digest of part {number}", part.sha1)
    if len({part.filename for part in parts}) != len(parts):
        raise BundleError("two parts of the manifest have the same filename")


def _part(element: Element) -> Part:
    index = element.attributes.get("index", "")
    if not (index.isdecimal() and index.isascii() and len(index) < 10):
        _refuse("index of a part", index)
    return Part(int(index), _text(element, "filename"), _digest(element))


def _digest(element: Element) -> str:
    digest = element.one("digest")
    if digest.attributes.get("algorithm") != "SHA1":
        _refuse("algorithm of a digest", digest.attributes.get("algorithm"))
    return digest.text.strip().lower()


def _mappings(machine: Element) -> Iterator[tuple[str, str]]:
    if (mapping := machine.optional("block_device_mapping")) is not None:
        for each in mapping.all("mapping"):
            yield _text(each, "virtual"), _text(each, "device")


def _text(element: Element, tag: str) -> str:
    return element.one(tag).text.strip()


def _optional(element: Element, tag: str) -> str | None:
    found = element.optional(tag)
    return found.text.strip() or None if found else None


def _number(element: Element, tag: str) -> int:
    text = _text(element, tag)
    if not (text.isdecimal() and text.isascii() and len(text) < 20):
        _refuse(tag, text)
    return int(text)


def _refuse(field_name: str, value: object, hint: str | None = None) -> NoReturn:
    raise BundleError(f"the manifest cannot have {value!r} for its {field_name}", hint=hint)
