"""Stamps of files that an earlier scan found clean, so that a scan only reads files that changed since.

A stamp covers a file's inode, size, modification time and change time. No program can set the change time (only the
clock or the raw disk can be manipulated), so a file that was replaced by one of the same size and modification time
has another stamp. Disks of one source image have the same inodes and times, so a stamp is valid for the next instance.
"""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from collections.abc import Iterable, Iterator

STAMP_BYTES = 8
"""Length of a stamp: among 100,000 files, two have the same one with a probability of 3e-10."""
SETTLED_SECONDS = 2
"""Least age of a file's last change. A newer file may change again within the same tick of the clock, and keep its
change time."""

_FIELDS = struct.Struct("<QQqq")


def stamp(status: os.stat_result) -> bytes:
    """Return the stamp of a file."""
    fields = _FIELDS.pack(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return hashlib.blake2b(fields, digest_size=STAMP_BYTES).digest()


def pack(stamps: Iterable[bytes]) -> str:
    """Encode stamps as one line of text."""
    return base64.b64encode(b"".join(stamps)).decode("ascii")


def unpack(text: str) -> frozenset[bytes]:
    """Decode the text that `pack` returned. Raises ValueError for any other text."""
    return frozenset(split(base64.b64decode(text, validate=True)))


def split(packed: bytes) -> Iterator[bytes]:
    """Split joined stamps. Raises ValueError if the bytes are not whole stamps."""
    if len(packed) % STAMP_BYTES:
        raise ValueError("not a list of stamps")
    return (packed[at : at + STAMP_BYTES] for at in range(0, len(packed), STAMP_BYTES))
