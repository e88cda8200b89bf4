"""The kernel of a bare file system, taken out without mounting anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imagepipe.local.disks.contents import is_bare
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.qemu import kernel


def disk_of(folder: Path, links: dict[str, str], files: dict[str, bytes]) -> Path:
    tree, disk = folder / "tree", folder / "disk.raw"
    (tree / "boot").mkdir(parents=True)
    for name, target in links.items():
        (tree / name).symlink_to(target)
    for name, content in files.items():
        (tree / name).write_bytes(content)
    disk.touch()
    os.truncate(disk, 32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(disk)], check=True, capture_output=True)
    return disk


FILES = {"boot/vmlinuz-6.1": b"a kernel" * 1000, "boot/initrd.img-6.1": b"an initrd"}


@pytest.mark.parametrize(
    "links",
    [
        pytest.param({"vmlinuz": "boot/vmlinuz-6.1", "initrd.img": "boot/initrd.img-6.1"}, id="Debian's links in /"),
        pytest.param({"boot/vmlinuz": "vmlinuz-6.1", "boot/initrd.img": "initrd.img-6.1"}, id="Ubuntu's in /boot"),
    ],
)
def test_the_newest_kernel_is_where_the_links_point(tmp_path: Path, links: dict[str, str]) -> None:
    disk = disk_of(tmp_path, links, FILES)
    linux, initrd = kernel.extract(disk, tmp_path)
    assert linux.read_bytes() == FILES["boot/vmlinuz-6.1"]
    assert initrd.read_bytes() == FILES["boot/initrd.img-6.1"]


def test_a_disk_without_a_kernel_is_refused(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, {}, FILES)
    with pytest.raises(MachineError, match="without a kernel of its own: no link /vmlinuz or /boot/vmlinuz"):
        kernel.extract(disk, tmp_path)


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, {"vmlinuz": "boot/gone", "initrd.img": "boot/initrd.img-6.1"}, FILES)
    with pytest.raises(MachineError, match="taking /boot/gone out of"):
        kernel.extract(disk, tmp_path)


@pytest.mark.parametrize("target", ["boot/x y", 'boot/x" /etc/passwd', "boot/$(id)"])
def test_a_link_that_would_be_more_than_a_word_of_a_command_is_refused(tmp_path: Path, target: str) -> None:
    disk = disk_of(tmp_path, {"vmlinuz": target, "initrd.img": "boot/initrd.img-6.1"}, FILES)
    with pytest.raises(MachineError, match="points to"):
        kernel.extract(disk, tmp_path)


def test_a_bare_file_system_is_told_from_a_disk_with_partitions(tmp_path: Path) -> None:
    disk = disk_of(tmp_path, {}, FILES)
    assert is_bare(disk)
    other = tmp_path / "other.raw"
    other.write_bytes(bytes(1 << 20))
    assert not is_bare(other)
    short = tmp_path / "short.raw"
    short.write_bytes(b"")
    assert not is_bare(short)
