"""Delete folders without crossing a mount point, because the files behind one belong to somebody else."""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")


def delete_tree(folder: Path, *, mounts: Path = MOUNTS) -> None:
    """Delete a folder and everything in it; a folder that does not exist is fine.

    Raises OSError, with nothing deleted, if something is mounted on it or below it, even a bind mount of the same file
    system. If something is mounted during the deletion, raises OSError without entering the other file system.
    """
    try:
        device = folder.lstat().st_dev
    except FileNotFoundError:
        return
    if points := mount_points(folder, mounts=mounts):
        raise OSError(errno.EBUSY, f"not deleted, because something is mounted at {points[0]}", str(folder))
    with suppress(FileNotFoundError):  # another process has deleted it just now
        _empty(folder, os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW), device)
        folder.rmdir()


def _empty(folder: Path, descriptor: int, device: int) -> None:
    """Delete everything in an open folder, and close it."""
    try:
        if os.fstat(descriptor).st_dev != device:
            raise OSError(errno.EXDEV, "not deleted, because it is on another file system", str(folder))
        with os.scandir(descriptor) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_folder in names:
            with suppress(FileNotFoundError):  # another process has deleted it just now
                if is_folder:
                    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                    _empty(folder / name, inner, device)
                    os.rmdir(name, dir_fd=descriptor)
                else:
                    os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def mount_points(folder: Path, *, mounts: Path = MOUNTS) -> list[Path]:
    """Return the mount points at or below a folder, the deepest first (proc(5), mountinfo)."""
    top = os.path.realpath(folder)
    found = []
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:  # not Linux, or no /proc: each folder's device is still compared
        return []
    for line in lines:
        point = _unescape(line.split(b" ")[4])
        if point == top or point.startswith(top.rstrip("/") + "/"):
            found.append(Path(point))
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def _unescape(field: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code.group(1), 8)]), field))
