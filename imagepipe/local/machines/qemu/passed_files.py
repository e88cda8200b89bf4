"""Files that are passed to QEMU open, because its user may not open them."""

from __future__ import annotations

import os
from pathlib import Path


class PassedFiles:
    """Files that are passed to QEMU open, because its user may not open them."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.arguments: list[str] = []

    def take(self, fd: int) -> int:
        """Hand on a file descriptor, which is closed with the others."""
        self.fds.append(fd)
        return fd

    def name(self, path: str | Path, *modes: int, opaque: str = "") -> str:
        """Open a file in each mode that QEMU may use, and return its name for block and character devices.

        QEMU keeps the text `opaque` with the file descriptors.
        """
        number = len(self.fds) + 1
        for mode in modes:
            fd = self.take(os.open(path, mode | os.O_CLOEXEC, 0o600))
            self.arguments += ["-add-fd", f"fd={fd},set={number}" + (f",opaque={opaque}" if opaque else "")]
        return f"/dev/fdset/{number}"

    def plain(self, path: Path) -> str:
        """Open a file, make it readable for all (its folder is private), and return its name for fopen(3)."""
        fd = self.take(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        os.fchmod(fd, 0o444)
        return f"/proc/self/fd/{fd}"

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
