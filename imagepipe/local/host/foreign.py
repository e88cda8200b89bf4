"""A mark on disk files with data from elsewhere. No driver lets this computer's kernel mount a marked disk.

A file system can be crafted to attack the kernel that mounts it. The mark is the sticky bit of the
file, which Linux gives no meaning on a file. Hard links share it, and each copy of a disk gets it.
"""

from __future__ import annotations

import stat
from pathlib import Path

MARK = stat.S_ISVTX


def is_foreign(disk: Path) -> bool:
    """Tell if bytes of this disk come from elsewhere."""
    return bool(disk.stat().st_mode & MARK)


def set_mode(disk: Path, mode: int, *, like: Path | None = None, is_foreign_itself: bool = False) -> None:
    """Set the permissions of a disk, with the mark if it is foreign itself or a copy of a marked disk (`like`)."""
    has_mark = is_foreign_itself or (like is not None and is_foreign(like))
    disk.chmod(mode | MARK if has_mark else mode)


def mark(disk: Path) -> None:
    """Mark a disk."""
    disk.chmod(stat.S_IMODE(disk.stat().st_mode) | MARK)
