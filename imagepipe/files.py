"""Write files atomically, and wait until they are on stable storage."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

OWNER_ONLY = 0o600
EVERYONE = 0o666
"""Permission bits of a file that others may use as well, as far as the process's umask allows."""


def write_atomically(path: Path, content: str | bytes, *, mode: int = OWNER_ONLY) -> None:
    """Write a file with these permission bits; it always has its old or its new content. Raises OSError."""
    half = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        half.rename(path)
    finally:
        half.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on stable storage."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
