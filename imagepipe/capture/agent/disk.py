"""Find the disk that has the root, and its data: blocks that its file systems report as free are left out.

Free blocks would cost time and space, and they contain deleted files.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from imagepipe.bundle.extents import Extent, merged, nonzero_runs
from imagepipe.bundle.flow import BLOCK_BYTES
from imagepipe.capture.agent import mounts
from imagepipe.capture.agent.errors import AgentError, output_of

SECTOR = 512
"""Sector size in sysfs, independent of the disk's own."""
FLUSH = 0x1261
"""BLKFLSBUF (linux/fs.h), which drops cached data of the disk."""
SWAP_AT, SWAP_MAGIC = 4086, b"SWAPSPACE2"
SWAP_HEADER_BYTES = 4096


class Partition(NamedTuple):
    """A partition, which has its own device. A disk without partitions is treated as one partition."""

    device: str
    offset: int
    size: int


class Disk(NamedTuple):
    """A disk and its partitions, in their order on the disk."""

    device: str
    size: int
    partitions: tuple[Partition, ...]
    root: Partition
    """The partition with the root."""

    @property
    def has_table(self) -> bool:
        return self.partitions != (self.root,) or self.root.size != self.size


def disk_of_root() -> Disk:
    """Return the disk that `/` is on. Raises AgentError if `/` is not on a plain partition of a disk."""
    device = mounts.root_mount().device
    here = Path("/sys/dev/block") / device
    if not here.exists():
        raise AgentError(
            f"finding the root's disk: the root ({mounts.root_mount().kind}) is not on a block device",
            "use method: tree",
        )
    here = here.resolve()
    if (here / "dm").exists() or (here / "md").exists():
        raise AgentError(
            f"finding the root's disk: it is on {here.name} (device mapper or RAID), not on a plain partition",
            "use method: tree",
        )
    is_partition = (here / "partition").exists()
    disk = here.parent if is_partition else here
    size = _number(disk / "size") * SECTOR
    found = [
        Partition(_node(each), _number(each / "start") * SECTOR, _number(each / "size") * SECTOR)
        for each in disk.iterdir()
        if (each / "partition").exists()
    ]
    whole = Partition(_node(disk), 0, size)
    partitions = tuple(sorted(found, key=lambda each: each.offset)) or (whole,)
    root = next((each for each in partitions if each.device == _node(here)), whole)
    return Disk(_node(disk), size, partitions, root)


def points_on(disk: Disk) -> list[str]:
    """Return the mount points of the disk's writable file systems, the root first."""
    nodes = {_number_of(each.device) for each in disk.partitions}
    points = [each.point for each in mounts.mounted() if each.device in nodes and not each.is_read_only]
    return sorted({*points, "/"} if points else {"/"}, key=len)


def data_extents(disk: Disk) -> list[Extent]:
    """Return the extents of the disk that are in use. Everything on it must be read-only. Raises AgentError."""
    fd = os.open(disk.device, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FLUSH, 0)
        return list(merged(_used(fd, disk)))
    finally:
        os.close(fd)


def _used(fd: int, disk: Disk) -> Iterator[Extent]:
    at = 0
    for partition in disk.partitions:
        yield from _not_zeros(fd, at, partition.offset)
        yield from used_extents(fd, partition)
        at = partition.offset + partition.size
    yield from _not_zeros(fd, at, disk.size)


def used_extents(fd: int, partition: Partition) -> Iterator[Extent]:
    """Return the extents of a partition that its file system uses, as offsets on the disk."""
    doing = f"reading the free space of {partition.device}"
    head = os.pread(fd, 68 << 10, partition.offset)
    free: list[Extent] | None
    if head[1024 + 56 : 1024 + 58] == b"\x53\xef":
        free = ext_free(output_of(["dumpe2fs", partition.device], doing=doing).splitlines())
    elif head[:4] == b"XFSB":
        free = xfs_free(partition.device)
    elif head[SWAP_AT : SWAP_AT + len(SWAP_MAGIC)] == SWAP_MAGIC:
        # Swapped-out memory may contain secrets, so everything behind the header counts as free.
        free = [Extent(SWAP_HEADER_BYTES, partition.size - SWAP_HEADER_BYTES)]
    else:
        free = None
    if free is None:
        yield from _not_zeros(fd, partition.offset, partition.offset + partition.size)
        return
    at = 0
    for extent in merged(sorted(free), least_hole=1):
        if extent.offset > at:
            yield Extent(partition.offset + at, extent.offset - at)
        at = max(at, extent.end)
    if at < partition.size:
        yield from _not_zeros(fd, partition.offset + at, partition.offset + partition.size)


def ext_free(lines: Iterable[str]) -> list[Extent] | None:
    """Return the free space in bytes from dumpe2fs's output: free blocks and never used parts of inode tables.

    None if it is unknown: with `bigalloc`, blocks are counted differently.
    """
    block = inode = table_end = 0
    free: list[Extent] = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "Filesystem features" and "bigalloc" in value:
            return None
        if name == "Block size":
            block = int(value)
        elif name == "Inode size":
            inode = int(value)
        elif name.startswith("  Inode table at "):
            table_end = (int(name.split()[3].partition("-")[2]) + 1) * block
        elif name == "  Free blocks":
            for run in value.replace(",", " ").split():
                first, _, last = run.partition("-")
                free.append(Extent(int(first) * block, (int(last or first) - int(first) + 1) * block))
        else:
            unused = _UNUSED_INODES.search(line)
            length = int(unused.group(1)) * inode // block * block if unused else 0
            if length:
                free.append(Extent(table_end - length, length))
    if not block:
        raise AgentError("reading the free space: dumpe2fs printed no block size")
    return free


def xfs_free(device: str) -> list[Extent]:
    """Return the free space in bytes from xfs_db's output."""
    output = output_of(
        ["xfs_db", "-r", "-c", "sb 0", "-c", "p blocksize agblocks", "-c", "freesp -d", device],
        doing="reading the free space of " + device,
    )
    sizes = dict(re.findall(r"^(blocksize|agblocks) = (\d+)$", output, re.MULTILINE))
    block, group = int(sizes["blocksize"]), int(sizes["agblocks"])
    rows = re.findall(r"^\s*(\d+)\s+(\d+)\s+(\d+)\s*$", output, re.MULTILINE)
    return [Extent((int(at) * group + int(first)) * block, int(count) * block) for at, first, count in rows]


_UNUSED_INODES = re.compile(r", (\d+) unused inodes$")


def _not_zeros(fd: int, begin: int, end: int) -> Iterator[Extent]:
    """Yield the extents that are not zeros; the data is read here, and again when it is sent."""
    while begin < end:
        content = os.pread(fd, min(BLOCK_BYTES, end - begin), begin)
        if not content:
            return
        for run in nonzero_runs(content):
            yield Extent(begin + run.offset, run.length)
        begin += len(content)


def _node(folder: Path) -> str:
    return "/dev/" + folder.name.replace("!", "/")


def _number(file: Path) -> int:
    return int(file.read_text())


def _number_of(device: str) -> str:
    number = os.stat(device).st_rdev  # noqa: PTH116 - a device's own number
    return f"{os.major(number)}:{os.minor(number)}"
