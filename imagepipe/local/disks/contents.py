"""Recognize what a disk holds."""

from __future__ import annotations

import struct
from pathlib import Path

EXT_MAGIC_AT, EXT_MAGIC = 1024 + 56, 0xEF53  # ext2/3/4 superblock, s_magic
LEAST_BYTES = 1 << 20
"""The firmware does not boot from a disk of one sector."""


def is_bare(disk: Path) -> bool:
    """Whether the disk is an ext file system from its first byte; one with partitions is not."""
    with disk.open("rb") as file:
        file.seek(EXT_MAGIC_AT)
        magic = file.read(2)
    return len(magic) == 2 and struct.unpack("<H", magic)[0] == EXT_MAGIC
