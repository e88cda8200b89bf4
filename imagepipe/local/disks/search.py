"""Scan the files of a disk without a machine: mount it read-only where nobody else sees it, and search it.

The scan is a process of its own, in a mount namespace of its own, over loop devices that the kernel clears: whatever
is killed, nothing stays mounted, and nothing is written to the disk. A part without a known file system is searched as
if it were one file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from tempfile import TemporaryFile

from imagepipe.errors import LocalCloudError
from imagepipe.hygiene.report import Report, ScanRequest, read_report
from imagepipe.hygiene.walk import Tree, scan, scan_bytes
from imagepipe.local.disks.contents import Part, read_partitions
from imagepipe.local.host import loop
from imagepipe.local.host.tools import run_tool

MOUNT_POINT = "/mnt"
"""A folder that every Linux has (FHS 3.0). The mount in the private namespace does not touch its contents."""
TYPES = (
    ("ext4", 1024 + 56, b"\x53\xef", "ro,noload"),  # ext2 and ext3 too; not even the journal is replayed
    ("xfs", 0, b"XFSB", "ro,norecovery,nouuid"),
    ("btrfs", 0x10040, b"_BHRfS_M", "ro"),
    ("vfat", 82, b"FAT32   ", "ro"),
    ("vfat", 54, b"FAT16   ", "ro"),
    ("vfat", 54, b"FAT12   ", "ro"),
)
"""File systems, with the offset and value of their magic numbers (blkid's tables), and mount options."""


def scan_disk(
    disk: Path, request: ScanRequest, *, calling: Callable[[Callable[[], None]], AbstractContextManager[None]]
) -> Report:
    """Scan a raw disk for contents that must not be in an image.

    `calling` registers, for a block, a function that ends the scan if the caller is cancelled. Raises LocalCloudError.
    """
    command = [
        "unshare", "--mount", "--propagation", "private",
        sys.executable, "-m", "imagepipe.local.disks.search", str(disk),
    ]  # fmt: skip
    with TemporaryFile() as errors:
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
        except FileNotFoundError as missing:
            raise LocalCloudError(f"looking at {disk}: unshare is not installed (package util-linux)") from missing
        with process, calling(process.kill):
            out, _ = process.communicate(request.line())
        report = read_report(out.decode().splitlines())
        if process.returncode != 0 or report is None:
            errors.seek(0)
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise LocalCloudError(
                f"looking at {disk}: {last[0] if last else f'exit {process.returncode}'}",
                hint="it needs root; see imagepipe local doctor",
            )
        return report


def main() -> int:
    """Scan every part of the disk, inside the namespace, and print one report."""
    disk, request = Path(sys.argv[1]), ScanRequest.parse(sys.stdin.buffer.readline())
    try:
        report = Report.of_all([_look(disk, part, request) for part in parts(disk)])
    except (LocalCloudError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    print(report.line())  # noqa: T201 - to the parent
    return 0


def parts(disk: Path) -> list[Part]:
    """List the partitions of a disk; one without a table is itself a part. Raises LocalCloudError."""
    whole = Part(0, disk.stat().st_size)
    if _type(disk, whole) is not None:
        return [whole]
    return read_partitions(disk) or [whole]


def _look(disk: Path, part: Part, request: ScanRequest) -> Report:
    known = _type(disk, part)
    if known is None:
        return _as_file(disk, part, request)
    kind, options = known
    with closing(loop.attach(disk, is_read_only=True, offset=part.offset, size=part.size)) as device:
        mount = ["mount", "--types", kind, "--options", options, device.device, MOUNT_POINT]
        run_tool(mount, error=LocalCloudError)
        try:
            return scan([Tree(MOUNT_POINT)], request)
        finally:
            run_tool(["umount", MOUNT_POINT], error=LocalCloudError)


def _as_file(disk: Path, part: Part, request: ScanRequest) -> Report:
    """Search a part without a file system by content alone."""
    return scan_bytes(_data(disk, part), f"/(the disk from byte {part.offset})", request)


def _data(disk: Path, part: Part) -> Iterator[bytes]:
    """Read the bytes of a part without its holes."""
    fd = os.open(disk, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at, end = part.offset, part.offset + part.size
        while at < end:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:  # only a hole is left
                return
            until = min(end, os.lseek(fd, at, os.SEEK_HOLE))
            while at < until:
                block = os.pread(fd, min(1 << 20, until - at), at)
                yield block
                at += len(block)
    finally:
        os.close(fd)


def _type(disk: Path, part: Part) -> tuple[str, str] | None:
    """Return the file system of a part and its mount options; None for an unknown one."""
    with disk.open("rb") as file:
        for kind, at, magic, options in TYPES:
            file.seek(part.offset + at)
            if at + len(magic) <= part.size and file.read(len(magic)) == magic:
                return kind, options
    return None


if __name__ == "__main__":
    sys.exit(main())
