"""gzip and AES by the standard library and libcrypto: what other programs make of them."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from imagepipe.bundle.cipher import Secret, decrypted
from imagepipe.capture.agent.aes import encrypted
from imagepipe.capture.agent.gzip import gzipped


def _blocks(content: bytes, size: int) -> list[bytes]:
    edges = [*range(0, len(content), size), len(content)]
    return [content[at:end] for at, end in pairwise(edges)]


@pytest.mark.parametrize("size", [0, 1, 40_000, 3 << 20])
def test_what_is_squeezed_is_one_gzip_member_with_the_same_bytes(size: int) -> None:
    content = (random.Random(size).randbytes(997) * (size // 997 + 1))[:size]
    made = b"".join(gzipped(_blocks(content, 1 << 20) if size else []))
    assert gzip.decompress(made) == content
    assert made.count(b"\x1f\x8b\x08\0\0\0\0\0\0\xff") == 1


def test_the_same_blocks_give_the_same_bytes() -> None:
    content = os.urandom(1 << 20) + bytes(1 << 20)
    assert list(gzipped(_blocks(content, 1 << 19))) == list(gzipped(_blocks(content, 1 << 19)))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
def test_libcrypto_by_ctypes_and_by_openssl_encrypt_alike(size: int, tmp_path: Path) -> None:
    secret, content = Secret.new(), os.urandom(size)
    made = b"".join(encrypted(_blocks(content, 7000) if size else [], secret.key, secret.iv))
    assert b"".join(decrypted([made], secret)) == content
    command = ["openssl", "enc", "-aes-128-cbc", "-K", secret.key.hex(), "-iv", secret.iv.hex()]
    assert subprocess.run(command, input=content, capture_output=True, check=True).stdout == made
