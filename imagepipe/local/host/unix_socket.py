"""Unix sockets in folders with long paths: the path of such a socket has at most 107 bytes (unix(7))."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def connect(folder: Path, name: str, *, seconds: float) -> Iterator[socket.socket]:
    """Connect to the socket in this folder; each step may take so many seconds. Raises OSError."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(seconds)
            connection.connect(f"/proc/self/fd/{descriptor}/{name}")
            yield connection
    finally:
        os.close(descriptor)
