"""Loop devices that the kernel detaches by itself.

Each is made with autoclear set while we hold it open: it lives as long as somebody has it open or mounted, so a
process that is killed between two steps leaves none behind. losetup(8) cannot do that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.local.host.waiting import tries

CONTROL = Path("/dev/loop-control")
# linux/loop.h
CTL_GET_FREE = 0x4C82
CONFIGURE = 0x4C0A
CLEAR = 0x4C01
SET_CAPACITY = 0x4C07
READ_ONLY, AUTOCLEAR = 1, 4
MAJOR = 7
# struct loop_config: fd, block size, loop_info64 (three of the kernel's, offset, limit, ..., flags, names), reserved
CONFIG = struct.Struct("=II 5Q IIII 64s64s32s 2Q 8Q")
ATTEMPTS = 50  # others take the free one that we were told of; each failed attempt means that somebody got one


@dataclass(frozen=True, slots=True)
class Loop:
    """A loop device, held by an open file descriptor of ours."""

    device: str
    """`/dev/loop3`."""
    fd: int

    def close(self) -> None:
        os.close(self.fd)


def attach(path: Path, *, is_read_only: bool = False, offset: int = 0, size: int = 0) -> Loop:
    """Attach a loop device to this file, or to `size` bytes of it from an offset; 0: to its end. Raises OSError."""
    backing = os.open(path, (os.O_RDONLY if is_read_only else os.O_RDWR) | os.O_CLOEXEC)
    flags = AUTOCLEAR | (READ_ONLY if is_read_only else 0)
    try:
        for _ in range(ATTEMPTS):
            if loop := _try(_free_number(), backing, path, (offset, size), flags):
                return loop
        raise OSError(errno.EBUSY, "every free loop device was taken by somebody else", str(CONTROL))
    finally:
        os.close(backing)


def attached(folder: Path) -> Iterator[tuple[str, Path]]:
    """List devices whose backing file is under this folder, and that file."""
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = Path(entry.read_text().rstrip("\n"))
        except OSError:  # detached while we looked
            continue
        if backing.is_relative_to(folder):
            yield f"/dev/{entry.parts[-3]}", backing


def devices_of(paths: frozenset[Path]) -> list[str]:
    """List devices over one of these files."""
    return [device for folder in {p.parent for p in paths} for device, path in attached(folder) if path in paths]


def wait_free(paths: frozenset[Path], seconds: float) -> None:
    """Wait until the kernel has detached every device over these files, then detach the remaining ones.

    The kernel detaches a device after its last unmount, which writes all data that is still in memory.
    """
    for _ in tries(seconds, pause=0.005):
        if not devices_of(paths):
            return
    for device in devices_of(paths):
        detach(device)


def set_capacity(device: str) -> None:
    """Give the device the size that its backing file has now. Raises OSError."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, SET_CAPACITY)
    finally:
        os.close(fd)


def detach(device: str) -> None:
    """Detach the device as soon as nobody uses it; a detached one is success."""
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.ioctl(fd, CLEAR)
    except OSError as problem:
        if problem.errno != errno.ENXIO:
            raise
    finally:
        os.close(fd)


def _free_number() -> int:
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, CTL_GET_FREE)
    finally:
        os.close(control)


def _try(number: int, backing: int, path: Path, part: tuple[int, int], flags: int) -> Loop | None:
    device = f"/dev/loop{number}"
    if not Path(device).exists():  # no udev and no devtmpfs, as in a container
        os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(MAJOR, number))
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    name = os.fsencode(path)[:63]
    config = CONFIG.pack(backing, 0, 0, 0, 0, *part, 0, 0, 0, flags, name, b"", b"", *[0] * 10)
    try:
        fcntl.ioctl(fd, CONFIGURE, config)
    except OSError as problem:
        os.close(fd)
        if problem.errno == errno.EBUSY:
            return None
        raise
    return Loop(device, fd)
