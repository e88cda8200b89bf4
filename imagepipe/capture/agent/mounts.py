"""List and change mounts with the kernel's own table and system call, independent of the machine's `mount`."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from imagepipe.capture.agent.errors import AgentError

READ_ONLY, REMOUNT, BIND, PRIVATE, RELATIVE_TIME = 0x1, 0x20, 0x1000, 0x40000, 0x200000
"""linux/mount.h"""
SAME_IN_STATVFS = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME
"""Mount flags that statvfs reports with the same numbers; a remount must repeat them or it would clear them."""


class Mount(NamedTuple):
    """A line of mountinfo (proc(5))."""

    device: str
    """Device number as MAJOR:MINOR."""
    root: str
    """Folder of the file system that is mounted; `/` if the whole file system is."""
    point: str
    kind: str
    is_read_only: bool
    """The whole file system is read-only, not only this mount of it."""


def mounted() -> list[Mount]:
    """Return all mounts in the order of mounting."""
    return [_mount(line) for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()]


def root_mount() -> Mount:
    """Return the mount at `/`."""
    return [each for each in mounted() if each.point == "/"][-1]


def bind(source: str, target: str) -> None:
    """Bind-mount a folder at another place, without the mounts in it and without propagation of later ones."""
    _call(source, target, BIND)
    _call(None, target, PRIVATE)


def remount_read_only(point: str) -> None:
    """Make the file system there read-only. Raises OSError: EBUSY while somebody writes."""
    _call(None, point, REMOUNT | READ_ONLY)


def remount_view_read_only(point: str) -> None:
    """Make only this mount read-only; other mounts of the file system stay writable.

    Raises OSError: EBUSY while somebody writes.
    """
    flags = os.statvfs(point).f_flag
    kept = flags & SAME_IN_STATVFS | (RELATIVE_TIME if flags & os.ST_RELATIME else 0)
    _call(None, point, REMOUNT | BIND | READ_ONLY | kept)


def unmount(point: str) -> None:
    """Unmount the file system at this mount point, even while it is in use."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(point), 2) != 0:  # MNT_DETACH
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)


def delete_tree(folder: str | Path) -> None:
    """Delete a folder of the agent, if it exists.

    Raises AgentError, before anything is deleted, if something is mounted at it or in it.
    """
    path = Path(folder)
    place = os.path.join(os.path.realpath(str(path.parent)), path.name)  # noqa: PTH118 - does not resolve a final link
    within = [each.point for each in mounted() if each.point == place or each.point.startswith(place + "/")]
    if within:
        raise AgentError(f"deleting {folder}: {within[0]} is a mount point", "unmount it in a provisioning step")
    shutil.rmtree(place, ignore_errors=True)  # does not follow links


def _call(source: str | None, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    what = os.fsencode(source) if source is not None else b"none"
    if libc.mount(what, os.fsencode(target), None, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def _mount(line: str) -> Mount:
    before, _, after = line.partition(" - ")
    fields, (kind, _, *options) = before.split(), after.split(" ")
    return Mount(
        fields[2], _plain(fields[3]), _plain(fields[4]), kind, "ro" in (options[0] if options else "").split(",")
    )


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), field)
