"""Where a disk has data: what its file systems call free is left out, and nothing that anybody misses."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
from pathlib import Path

import pytest

from imagepipe.bundle.extents import Extent, merged
from imagepipe.capture.agent.disk import Partition, ext_free, used_extents

MIB = 1 << 20


def _run(*command: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _kept(image: Path, folder: Path) -> tuple[Path, int]:
    """The image with nothing but its used extents, and their bytes; beside them there are other bytes than before."""
    fd = os.open(image, os.O_RDONLY)
    extents = list(merged(used_extents(fd, Partition(str(image), 0, image.stat().st_size))))
    kept = folder / "kept"
    with kept.open("wb") as file:
        file.truncate(image.stat().st_size)
        for extent in extents:
            file.seek(extent.offset)
            file.write(os.pread(fd, extent.length, extent.offset))
    os.close(fd)
    return kept, sum(extent.length for extent in extents)


@pytest.mark.parametrize(
    "options",
    [["-b", "4096"], ["-b", "1024"], ["-b", "4096", "-O", "^metadata_csum,^uninit_bg,^flex_bg"], ["-O", "bigalloc"]],
    ids=["4096", "1024", "old", "bigalloc"],
)
def test_an_ext_file_system_without_its_free_blocks_is_the_same(options: list[str], tmp_path: Path) -> None:
    """A deleted file is gone from it; fsck has nothing to say, and every file has its bytes."""
    tree = tmp_path / "tree"
    tree.mkdir()
    content = random.Random(1).randbytes(3 * MIB + 77)
    (tree / "kept").write_bytes(content)
    (tree / "deleted").write_bytes(b"DELETED-SECRET." * 100_000)
    image = tmp_path / "image"
    _run("mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", tree, image, "96M")
    _run("debugfs", "-w", "-R", "rm /deleted", image)
    _run("e2fsck", "-fy", image)
    kept, size = _kept(image, tmp_path)
    _run("e2fsck", "-fn", kept)
    _run("debugfs", "-R", f"dump /kept {tmp_path / 'out'}", kept)
    assert (tmp_path / "out").read_bytes() == content
    if "bigalloc" not in options:  # there all that is not zeros is kept
        assert b"DELETED-SECRET." not in kept.read_bytes()
        assert size < 24 * MIB


def test_an_xfs_file_system_without_its_free_blocks_is_the_same(tmp_path: Path) -> None:
    image = tmp_path / "image"
    content = tmp_path / "content"
    content.write_bytes(random.Random(2).randbytes(2 * MIB))
    proto = tmp_path / "proto"
    proto.write_text(f"/\n0 0\nd--755 0 0\nkept ---644 0 0 {content}\n$\n")
    _run("mkfs.xfs", "-q", "-f", "-p", proto, "-d", f"file,name={image},size=320m")
    kept, size = _kept(image, tmp_path)
    _run("xfs_repair", "-n", "-f", kept)
    with kept.open("rb") as disk, mmap.mmap(disk.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped.find(content.read_bytes()) >= 0
    assert size < 100 * MIB


def test_of_a_swap_partition_its_header_alone_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(4 * MIB))
    _run("mkswap", image)
    with image.open("r+b") as file:
        file.seek(MIB)
        file.write(b"MEMORY-OF-SOMEBODY" * 1000)
    kept, size = _kept(image, tmp_path)
    assert size == 4096
    assert b"SWAPSPACE2" in kept.read_bytes()


def test_of_what_is_no_known_file_system_all_that_is_not_zeros_is_kept(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(MIB) + b"x" * 5000 + bytes(MIB))
    kept, size = _kept(image, tmp_path)
    assert kept.read_bytes() == image.read_bytes()
    assert size == 8192


def test_free_blocks_are_read_of_what_dumpe2fs_prints() -> None:
    said = """\
Filesystem features:      has_journal metadata_csum
Free blocks:              9
Block size:               1024
Inode size:	          256
Group 0: (Blocks 1-8192) csum 0x722c
  Inode table at 293-798 (+292)
  3 free blocks, 2013 free inodes, 2 directories, 2009 unused inodes
  Free blocks: 7897, 8000-8001
  Free inodes: 12-2024
Group 1: (Blocks 8193-16384) [INODE_UNINIT]
  Inode table at 799-1304 (bg #0 + 798)
  0 free blocks, 0 free inodes, 0 directories
  Free blocks:
"""
    unused = 2009 * 256 // 1024 * 1024
    free = [Extent(799 * 1024 - unused, unused), Extent(7897 * 1024, 1024), Extent(8000 * 1024, 2048)]
    assert ext_free(said.splitlines()) == free
