"""S3's checksum algorithms, and the checksum that a request states (S3 user guide, "Checking object integrity")."""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.protocol import crc
from imagepipe.local.aws.protocol.errors import AwsError

PREFIX = "x-amz-checksum-"
SDK_ALGORITHM = "x-amz-sdk-checksum-algorithm"
SETTINGS = frozenset({"algorithm", "mode", "type"})
"""Ends of the names of headers that begin with PREFIX, and hold no checksum."""
COMPOSITE, FULL_OBJECT = "COMPOSITE", "FULL_OBJECT"


class Digest(Protocol):
    """A hash of hashlib, or a checksum with the same methods."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._sum = 0

    def update(self, data: bytes, /) -> None:
        self._sum = zlib.crc32(data, self._sum)

    def digest(self) -> bytes:
        return self._sum.to_bytes(4, "big")


CHECKSUMS: Mapping[str, Callable[[], Digest]] = {
    "CRC32": _Crc32,
    "CRC32C": partial(crc.Crc, crc.CRC32C),
    "CRC64NVME": partial(crc.Crc, crc.CRC64NVME),
    "SHA1": partial(hashlib.sha1, usedforsecurity=False),
    "SHA256": hashlib.sha256,
    "SHA512": hashlib.sha512,
    "MD5": partial(hashlib.md5, usedforsecurity=False),
}
POLYNOMIALS = {"CRC32": crc.CRC32, "CRC32C": crc.CRC32C, "CRC64NVME": crc.CRC64NVME}
"""Algorithms whose checksum of an object follows from those of its parts."""
UNSUPPORTED = frozenset({"XXHASH64", "XXHASH3", "XXHASH128"})
"""Algorithms of S3 that neither Python nor the local cloud has."""


@dataclass(frozen=True, slots=True)
class Stated:
    """The checksum that a request states for its body."""

    algorithm: str
    value: str | None
    """In base64; None if it comes in a trailer, after the body."""

    @property
    def header(self) -> str:
        return PREFIX + self.algorithm.lower()


def stated(request: Request) -> Stated | None:
    """Return the checksum that the request states. Raises AwsError for several of them, and for an invalid one."""
    given = dict(request.query_pairs()) | dict(request.headers)
    values = {name.lower().removeprefix(PREFIX).upper(): value for name, value in given.items() if _is_checksum(name)}
    trailers = [name.strip().lower() for name in given.get("x-amz-trailer", "").split(",") if _is_checksum(name)]
    algorithms = {*values, *(name.removeprefix(PREFIX).upper() for name in trailers)}
    if len(algorithms) > 1:
        text = f"Expecting a single {PREFIX} header. Multiple checksum Types are not allowed."
        raise AwsError("InvalidRequest", text)
    announced = given.get(SDK_ALGORITHM, "").upper()
    for algorithm in {announced, *algorithms} - {""}:
        check_algorithm(algorithm)
    if not algorithms and announced:
        text = f"{SDK_ALGORITHM} specified, but no corresponding {PREFIX}* or x-amz-trailer headers were found."
        raise AwsError("InvalidRequest", text)
    if not algorithms:
        return None
    [algorithm] = algorithms
    if announced not in ("", algorithm):
        raise AwsError("InvalidRequest", f"Value for {SDK_ALGORITHM} header is invalid.")
    if algorithm in values:
        check_value(algorithm, values[algorithm], PREFIX + algorithm.lower())
    return Stated(algorithm, values.get(algorithm))


def _is_checksum(name: str) -> bool:
    name = name.strip().lower()
    return name.startswith(PREFIX) and name.removeprefix(PREFIX) not in SETTINGS


def check_algorithm(algorithm: str) -> None:
    """Raise AwsError if the local cloud cannot compute this checksum: none is stored unchecked."""
    if algorithm in UNSUPPORTED:
        text = f"The local cloud cannot compute {algorithm}; use one of {', '.join(CHECKSUMS)}"
        raise AwsError("NotImplemented", text, status=501)
    if algorithm not in CHECKSUMS:
        text = "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
        raise AwsError("InvalidRequest", f"{text}[{', '.join(CHECKSUMS)}]")


def check_value(algorithm: str, value: str, header: str) -> None:
    """Raise AwsError if the value is not the base64 of a checksum of this algorithm."""
    try:
        found = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if len(found) != len(CHECKSUMS[algorithm]().digest()):
        raise AwsError("InvalidRequest", f"Value for {header} header is invalid.")


def check(expected: Stated | None, found: str, trailers: Mapping[str, str]) -> None:
    """Raise AwsError if the stated checksum is not the one of the received bytes."""
    others = [name for name in trailers if _is_checksum(name) and (expected is None or name != expected.header)]
    value = None if expected is None else expected.value or trailers.get(expected.header)
    if others or (expected is not None and value is None):
        text = "The request contained trailing data that was not well-formed or did not conform to our published schema"
        raise AwsError("MalformedTrailerError", text)
    if expected is not None and value is not None:
        check_value(expected.algorithm, value, expected.header)
        if value != found:
            raise bad_digest(expected.algorithm)


def bad_digest(algorithm: str) -> AwsError:
    return AwsError("BadDigest", f"The {algorithm} you specified did not match the calculated checksum.")


def of(algorithm: str, body: bytes) -> str:
    """Return the checksum of these bytes, in base64."""
    made = CHECKSUMS[algorithm]()
    made.update(body)
    return encoded(made.digest())


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def composite(algorithm: str, parts: Sequence[str]) -> str:
    """Return the checksum of the parts' checksums, in base64."""
    return of(algorithm, b"".join(base64.b64decode(part) for part in parts))


def joined(algorithm: str, parts: Sequence[tuple[str, int]]) -> str:
    """Return the checksum of a whole object from the checksum and size of each part. Only CRCs can be joined."""
    polynomial, total = POLYNOMIALS[algorithm], 0
    for value, size in parts:
        total = polynomial.combined(total, int.from_bytes(base64.b64decode(value), "big"), size)
    return encoded(total.to_bytes(polynomial.size, "big"))


def check_type(algorithm: str | None, kind: str | None) -> str:
    """Return the type of an upload's checksum, the default if none is stated. Raises AwsError for a wrong one."""
    if algorithm is None:
        if kind is not None:
            text = "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            raise AwsError("InvalidRequest", text)
        return FULL_OBJECT
    check_algorithm(algorithm)
    possible = {COMPOSITE} if algorithm not in POLYNOMIALS else {COMPOSITE, FULL_OBJECT}
    possible = {FULL_OBJECT} if algorithm == "CRC64NVME" else possible
    chosen = kind or (COMPOSITE if COMPOSITE in possible else FULL_OBJECT)
    if chosen not in (COMPOSITE, FULL_OBJECT):
        raise AwsError("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if chosen not in possible:
        text = f"The {chosen} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        raise AwsError("InvalidRequest", text)
    return chosen
