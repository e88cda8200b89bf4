"""What is mounted, and mounting: by the kernel's own table and call, whatever `mount` the machine has."""

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
"""Flags of a mount that statvfs shows by the same numbers; not to repeat one would take it away."""


class Mount(NamedTuple):
    """A line of mountinfo (proc(5))."""

    device: str
    """MAJOR:MINOR."""
    root: str
    """What of the file system is seen there; `/` for all of it."""
    point: str
    kind: str
    is_read_only: bool
    """The file system as a whole, and not this view of it alone."""


def mounted() -> list[Mount]:
    """Everything that is mounted, in the order of mounting."""
    return [_mount(line) for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()]


def root_mount() -> Mount:
    """What is mounted at `/`."""
    return [each for each in mounted() if each.point == "/"][-1]


def bind(source: str, target: str) -> None:
    """Show a folder at another place too, without what is mounted in it, and without passing on what will be."""
    _call(source, target, BIND)
    _call(None, target, PRIVATE)


def remount_read_only(point: str) -> None:
    """Make the file system there read-only. Raises OSError: EBUSY while somebody writes."""
    _call(None, point, REMOUNT | READ_ONLY)


def remount_view_read_only(point: str) -> None:
    """Let nobody write by way of this mount, whatever other mounts of the file system allow.

    Raises OSError: EBUSY while somebody writes.
    """
    flags = os.statvfs(point).f_flag
    kept = flags & SAME_IN_STATVFS | (RELATIVE_TIME if flags & os.ST_RELATIME else 0)
    _call(None, point, REMOUNT | BIND | READ_ONLY | kept)


def unmount(point: str) -> None:
    """Take away what is mounted there, also while it is used."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(point), 2) != 0:  # MNT_DETACH
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), point)


def delete_tree(folder: str | Path) -> None:
    """Delete a folder of the agent's own, if it exists.

    Raises AgentError, before anything is deleted, where something is mounted at it or in it.
    """
    path = Path(folder)
    place = os.path.join(os.path.realpath(str(path.parent)), path.name)  # noqa: PTH118 - a link stays one
    within = [each.point for each in mounted() if each.point == place or each.point.startswith(place + "/")]
    if within:
        raise AgentError(f"deleting {folder}: {within[0]} is a mount point", "unmount it in a provisioning step")
    shutil.rmtree(place, ignore_errors=True)  # never by way of a link


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
