"""Recognize the contents of a disk."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.local.host.tools import try_tool

SECTOR = 512
EXT_MAGIC_AT, EXT_MAGIC = 1024 + 56, 0xEF53  # ext2/3/4 superblock, s_magic
MIN_DISK_BYTES = 1 << 20
"""The smallest disk: the firmware does not boot from a disk of one sector."""


def is_bare(disk: Path) -> bool:
    """Tell if the disk is an ext file system from its first byte; one with partitions is not."""
    with disk.open("rb") as file:
        file.seek(EXT_MAGIC_AT)
        magic = file.read(2)
    return len(magic) == 2 and struct.unpack("<H", magic)[0] == EXT_MAGIC


@dataclass(frozen=True, slots=True)
class Part:
    """A partition, or another piece of a disk; its place is in bytes."""

    offset: int
    size: int
    type: str = ""
    """In capitals: a GUID, or a number of an MBR."""


def read_partitions(disk: Path) -> list[Part]:
    """List the partitions of a disk; it has none without a partition table."""
    done = try_tool(["sfdisk", "--json", str(disk)])
    if done.returncode != 0:
        return []
    rows = json.loads(done.stdout)["partitiontable"].get("partitions", [])
    return [Part(row["start"] * SECTOR, row["size"] * SECTOR, str(row["type"]).upper()) for row in rows]
