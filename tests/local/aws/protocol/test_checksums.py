"""CRCs that Python lacks, against a sum made bit by bit, and the checksum of an object from those of its parts."""

from __future__ import annotations

import os
import zlib

import pytest

from imagepipe.local.aws.protocol import checksums
from imagepipe.local.aws.protocol.checksums import POLYNOMIALS
from imagepipe.local.aws.protocol.crc import LANE_BYTES, Crc, Polynomial
from imagepipe.local.aws.protocol.errors import AwsError

CHECKS = {"CRC32": 0xCBF43926, "CRC32C": 0xE3069283, "CRC64NVME": 0xAE8B14860A799888}
"""Checksums of `123456789`, by which CRCs are compared."""


def bit_by_bit(polynomial: Polynomial, data: bytes) -> bytes:
    register = polynomial.mask
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (polynomial.reflected if register & 1 else 0)
    return (register ^ polynomial.mask).to_bytes(polynomial.size, "big")


@pytest.mark.parametrize("name", list(CHECKS))
def test_the_usual_example_has_the_usual_sum(name: str) -> None:
    made = Crc(POLYNOMIALS[name])
    made.update(b"123456789")
    assert int.from_bytes(made.digest(), "big") == CHECKS[name]


@pytest.mark.parametrize("name", list(CHECKS))
@pytest.mark.parametrize("size", [0, 1, LANE_BYTES, 2 * LANE_BYTES - 1, 2 * LANE_BYTES, 3 * LANE_BYTES + 5, 20_000])
def test_a_sum_is_the_same_whatever_the_size_of_the_blocks(name: str, size: int) -> None:
    data = os.urandom(size)
    wanted = bit_by_bit(POLYNOMIALS[name], data)
    for block in (1, 700, LANE_BYTES, 4096, size + 1):
        made = Crc(POLYNOMIALS[name])
        for start in range(0, size, block):
            made.update(data[start : start + block])
        assert made.digest() == wanted, block


def test_a_large_sum_is_zlibs() -> None:
    data = os.urandom(3 << 20)
    made = Crc(POLYNOMIALS["CRC32"])
    made.update(data)
    assert int.from_bytes(made.digest(), "big") == zlib.crc32(data)


@pytest.mark.parametrize("name", list(CHECKS))
def test_the_sum_of_a_whole_follows_from_those_of_its_parts(name: str) -> None:
    parts = [b"", b"first", os.urandom(5000), b"\0" * 3000, b"last"]
    values = [(checksums.of(name, part), len(part)) for part in parts]
    assert checksums.joined(name, values) == checksums.of(name, b"".join(parts))


@pytest.mark.parametrize(
    ("algorithm", "kind", "chosen"),
    [
        (None, None, "FULL_OBJECT"),
        ("CRC32", None, "COMPOSITE"),
        ("CRC32C", "FULL_OBJECT", "FULL_OBJECT"),
        ("CRC64NVME", None, "FULL_OBJECT"),
        ("SHA256", None, "COMPOSITE"),
        ("SHA1", "FULL_OBJECT", None),
        ("CRC64NVME", "COMPOSITE", None),
        (None, "COMPOSITE", None),
        ("CRC32", "PARTIAL", None),
        ("ADLER", None, None),
    ],
)
def test_an_upload_has_the_type_of_checksum_that_its_algorithm_has(
    algorithm: str | None, kind: str | None, chosen: str | None
) -> None:
    if chosen is not None:
        assert checksums.check_type(algorithm, kind) == chosen
        return
    with pytest.raises(AwsError, match="InvalidRequest"):
        checksums.check_type(algorithm, kind)
