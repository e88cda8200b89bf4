"""A disk that boots by itself on a BIOS: a GPT, GRUB's first sector, and GRUB's core in a partition of its own.

Done by writing bytes, so nothing is mounted and no loop device is made. GRUB's own tool for it, grub-bios-setup, wants
a device. The places that are patched are those of GRUB's i386-pc boot sectors (grub-core/boot/i386/pc/boot.S,
diskboot.S; include/grub/i386/pc/boot.h).
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path

from imagepipe.local.disks.contents import SECTOR
from imagepipe.local.host.tools import run_tool

# Debian's cloud images, without the partition for UEFI: number, first sector, sectors (0: the rest), type.
LAYOUT = (
    (14, 2048, 6144, "21686148-6449-6E6F-744E-656564454649"),  # BIOS boot
    (1, 8192, 0, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),  # Linux root, x86-64
)
TAIL_BYTES = 1 << 20  # at the disk's end: the table's copy, and up to sfdisk's alignment
CODE_BYTES = 440  # of the first sector; behind it are the disk's signature and the protective table
KERNEL_SECTOR_AT = 0x5C  # GRUB_BOOT_MACHINE_KERNEL_SECTOR: where the core begins, 8 bytes
DRIVE_CHECK_AT = 0x66  # GRUB_BOOT_MACHINE_DRIVE_CHECK: with two NOPs there, the drive that the BIOS gives is trusted
BLOCK_LIST_AT = 0x1F4  # in the core's first sector: the rest's first sector (8 bytes), its sectors (2), its segment (2)
CORE_SEGMENT = 0x820
MODULES = ("biosdisk", "part_gpt", "part_msdos", "ext2", "search", "search_label", "normal", "linux", "configfile",
           "serial", "terminal", "test", "echo", "gzio")  # fmt: skip
PREFIX = "boot/grub"


class BootLoaderError(Exception):
    """The disk could not be made to boot. The text names the action and the reason."""


def partition(disk: Path) -> int:
    """Write the partition table, and return the offset of the root partition in bytes."""
    lines = ["label: gpt"]
    for number, first, sectors, kind in LAYOUT:
        size = sectors or (disk.stat().st_size - TAIL_BYTES) // SECTOR - first
        lines.append(f"{number}: start={first}, size={size}, type={kind}")
    command = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)]
    run_tool(command, error=BootLoaderError, stdin="\n".join(lines) + "\n")
    return next(first for number, first, _, _ in LAYOUT if number == 1) * SECTOR


def install(disk: Path, tree: Path, *, label: str, as_root: Sequence[str] = ()) -> None:
    """Install GRUB from the tree's packages: its boot code on the disk, its modules in the tree (the later root).

    The root is found by its label. `as_root` is the prefix of a command that needs root. Raises BootLoaderError.
    """
    source, grub = tree / "usr/lib/grub/i386-pc", tree / PREFIX
    modules = grub / "i386-pc"
    modules.mkdir(parents=True, exist_ok=True)
    for module in [*source.glob("*.mod"), *source.glob("*.lst")]:
        shutil.copyfile(module, modules / module.name)
    early, core = grub / "early.cfg", grub / "core.img"
    early.write_text(f"search.fs_label {label} root\nset prefix=($root)/{PREFIX}\n")
    try:
        command = [
            *as_root, "chroot", str(tree), "grub-mkimage", "--format=i386-pc", f"--prefix=/{PREFIX}",
            f"--config=/{PREFIX}/{early.name}", f"--output=/{PREFIX}/{core.name}", *MODULES,
        ]  # fmt: skip
        run_tool(command, error=BootLoaderError)
        _embed(disk, (source / "boot.img").read_bytes(), core.read_bytes())
    except OSError as problem:
        raise BootLoaderError(f"installing GRUB on {disk}: {problem}") from problem
    finally:
        early.unlink(missing_ok=True)
        core.unlink(missing_ok=True)


def _embed(disk: Path, boot: bytes, core: bytes) -> None:
    first, room = next((first, sectors) for number, first, sectors, _ in LAYOUT if number == 14)
    sectors = -(-len(core) // SECTOR)
    if sectors > room:
        raise BootLoaderError(f"GRUB's core has {sectors} sectors, and its partition {room}")
    start = bytearray(boot[:CODE_BYTES])
    struct.pack_into("<Q", start, KERNEL_SECTOR_AT, first)
    struct.pack_into("<2s", start, DRIVE_CHECK_AT, b"\x90\x90")
    body = bytearray(core)
    struct.pack_into("<QHH", body, BLOCK_LIST_AT, first + 1, sectors - 1, CORE_SEGMENT)
    with disk.open("r+b") as file:
        file.write(start)
        file.seek(first * SECTOR)
        file.write(body)
