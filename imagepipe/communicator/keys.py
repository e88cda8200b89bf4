"""Temporary key pairs of a run: one for logins, one as the instance's host key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from imagepipe.dataclass import dataclass
from imagepipe.errors import ImagepipeError


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An ed25519 key pair in OpenSSH's formats."""

    private: str = field(repr=False)
    """The text of an OpenSSH private key file."""
    public: str
    """`ssh-ed25519 AAAA… comment`."""


def generate(comment: str) -> KeyPair:
    """Generate a new key pair."""
    return _pair(Ed25519PrivateKey.generate(), comment)


def load_or_generate(path: Path, comment: str) -> KeyPair:
    """Load the key pair whose private key is in this file, or generate it and write the file. Raises ImagepipeError.

    A resumed run therefore uses the same keys, which its machines already know.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        pair = generate(comment)
        write_private(path, pair)
        return pair
    try:
        key = load_ssh_private_key(content, password=None)
    except ValueError as error:
        raise ImagepipeError(f"reading the run's key {path}: {error}") from error
    assert isinstance(key, Ed25519PrivateKey)
    return _pair(key, comment)


def delete_private_key(details: Mapping[str, str]) -> None:
    """Delete the private key that a claim's details name: a login key or a machine's host key.

    Also deletes the incomplete file of a process that was killed while writing it.
    """
    if name := details.get("private_key"):
        path = Path(name)
        # The key of a run that began elsewhere is there, in the home folder of another user.
        with suppress(PermissionError, NotADirectoryError):
            path.unlink(missing_ok=True)
            _half(path).unlink(missing_ok=True)


def _pair(key: Ed25519PrivateKey, comment: str) -> KeyPair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii")
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
    return KeyPair(private, f"{public} {comment}")


def write_private(path: Path, key: KeyPair) -> None:
    """Write the private key, whole or not at all, readable only by us."""
    half = _half(path)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.private)
    half.rename(path)


def _half(path: Path) -> Path:
    return path.with_name(f".{path.name}.half")
