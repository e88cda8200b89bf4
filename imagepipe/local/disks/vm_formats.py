"""Disk images of virtual machines, as ImportSnapshot takes them: VMDK and VHD, made raw by qemu-img.

The files are not trusted. QEMU would follow the names of other files in them (extents, parents), so a file that may
have any is refused before qemu-img opens it.
"""

from __future__ import annotations

import re
import shutil
import struct
from pathlib import Path

from imagepipe.local.disks.files import DiskError
from imagepipe.local.host.tools import run_tool

DRIVERS = {"VMDK": "vmdk", "VHD": "vpc"}
"""QEMU's names of the formats, by EC2's."""
SECTOR = 512
_VMDK = struct.Struct("<4sIIQQQQ")
"""Start of the header: magic, version, flags, capacity, grain size, place and length of the description, in sectors
(VMware, "Virtual Disk Format 5.0", section 4)."""
_WHOLE = ("monolithicSparse", "streamOptimized")
_FOOTER = b"conectix"
_TYPE_AT = 60  # of a VHD's footer (Microsoft, "Virtual Hard Disk Image Format Specification"): 2 fixed, 3 dynamic


def is_installed() -> bool:
    """Tell if the program that reads these formats is installed."""
    return shutil.which("qemu-img") is not None


def check(source: Path, form: str) -> None:
    """Raise DiskError for a file that is not a whole disk of this format."""
    problem = {"VMDK": _vmdk_problem, "VHD": _vhd_problem}[form](source)
    if problem:
        raise DiskError(f"not a whole {form} disk: {problem}")


def make_raw(source: Path, form: str, target: Path) -> None:
    """Write the disk's bytes to `target`. Raises DiskError."""
    check(source, form)
    command = ["qemu-img", "convert", "-f", DRIVERS[form], "-O", "raw", "-S", "4k", str(source), str(target)]
    run_tool(command, error=DiskError)


def _vmdk_problem(source: Path) -> str | None:
    with source.open("rb") as file:
        header = file.read(_VMDK.size)
        if len(header) < _VMDK.size or header[:4] != b"KDMV":
            return "it does not begin with the header of a sparse extent"
        _, _, _, capacity, _, place, length = _VMDK.unpack(header)
        if not capacity or not 0 < length <= 2048:
            return "its header names other files"
        file.seek(place * SECTOR)
        text = file.read(length * SECTOR).partition(b"\0")[0].decode("utf-8", "replace")
    kind = re.search(r'^\s*createType\s*=\s*"?(\w+)"?', text, re.MULTILINE)
    if kind is None or kind[1] not in _WHOLE:
        return f"its type is {kind[1] if kind else 'not stated'}, and must be one of {', '.join(_WHOLE)}"
    if "parentFileNameHint" in text:
        return "it needs a parent"
    return None


def _vhd_problem(source: Path) -> str | None:
    size = source.stat().st_size
    with source.open("rb") as file:
        file.seek(max(0, size - SECTOR))
        footer = file.read(SECTOR)
    if not footer.startswith(_FOOTER):
        return "it does not end with the footer of a VHD"
    kind = int.from_bytes(footer[_TYPE_AT : _TYPE_AT + 4], "big")
    return None if kind in (2, 3) else f"its type is {kind}: only fixed and dynamic disks are whole"
