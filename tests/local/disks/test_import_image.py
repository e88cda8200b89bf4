"""Disk images of other origin become disks of the local cloud, or are refused."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from imagepipe.errors import LocalCloudError
from imagepipe.local.disks.import_image import ARM_ROOT, BIOS_BOOT, ESP, check_name, read_image

MIB = 1 << 20
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
CODE = b"\xfa\x31\xc0"


def partitioned(path: Path, *kinds: str, code: bytes = CODE, esp: bytes = b"") -> Path:
    """A disk with a GPT, a partition of 4 MiB for each type, and these bytes in the first of them."""
    path.touch()
    os.truncate(path, 64 * MIB)
    lines = ["label: gpt", *(f"start={2048 + 8192 * at}, size=8192, type={kind}" for at, kind in enumerate(kinds))]
    subprocess.run(["sfdisk", "-q", str(path)], input="\n".join(lines), text=True, check=True, capture_output=True)
    with path.open("r+b") as file:
        file.write(code)
        file.seek(3 * MIB)
        file.write(esp)
    return path


def qcow2(raw: Path, *options: str) -> Path:
    made = raw.with_suffix(".qcow2")
    subprocess.run(
        ["qemu-img", "convert", "-O", "qcow2", *options, str(raw), str(made)], check=True, capture_output=True
    )
    return made


def patched(path: Path, at: int, form: str, value: int) -> Path:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack(form, value))
    return path


def truncated(path: Path) -> Path:
    os.truncate(path, path.stat().st_size // 2)
    return path


def good(folder: Path) -> Path:
    raw = partitioned(folder / "good.raw", BIOS_BOOT, LINUX)
    with raw.open("r+b") as file:  # bytes that can be lost
        file.seek(8 * MIB)
        file.write(os.urandom(4 * MIB))
    return raw


def begins_with(disk: Path, content: bytes) -> bool:
    """Return whether a disk begins with these bytes. A disk may be too large to be read as a whole."""
    with disk.open("rb") as file:
        return file.read(len(content)) == content


@pytest.mark.parametrize("options", [(), ("-c",), ("-o", "compat=0.10")], ids=["plain", "compressed", "version 2"])
def test_a_qcow2_becomes_the_same_disk_of_whole_gib_and_stays_sparse(tmp_path: Path, options: tuple[str, ...]) -> None:
    raw = good(tmp_path)
    said: list[str] = []
    found = read_image(qcow2(raw, *options), tmp_path / "imports", said.append)
    assert (found.size_gib, found.path.stat().st_size) == (1, 1 << 30)
    assert begins_with(found.path, raw.read_bytes())
    assert found.path.stat().st_blocks * 512 < 16 * MIB
    assert found.boots == "by its own boot loader, in QEMU"
    assert said[0] == "checking good.qcow2"


def test_a_raw_disk_is_taken_as_it_is(tmp_path: Path) -> None:
    raw = good(tmp_path)
    found = read_image(raw, tmp_path / "imports", lambda line: None)
    assert begins_with(found.path, raw.read_bytes())


def test_a_bare_file_system_is_taken_too(tmp_path: Path) -> None:
    tree, raw = tmp_path / "tree", tmp_path / "bare.raw"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "usr/bin/env").write_bytes(Path("/usr/bin/env").read_bytes())
    raw.touch()
    os.truncate(raw, 32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(raw)], check=True, capture_output=True)
    assert "bare file system" in read_image(raw, tmp_path / "imports", lambda line: None).boots
    arm = bytearray((tree / "usr/bin/env").read_bytes())
    struct.pack_into("<H", arm, 18, 183)
    (tree / "usr/bin/env").write_bytes(arm)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(raw)], check=True, capture_output=True)
    with pytest.raises(LocalCloudError, match="it is a bare file system for arm64"):
        read_image(raw, tmp_path / "imports", lambda line: None)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a backing file": (lambda f: patched(qcow2(good(f)), 8, ">Q", 512), "it needs a backing file"),
    "data in another file": (lambda f: patched(qcow2(good(f)), 72, ">Q", 1 << 2), "its data is in another file"),
    "encrypted": (lambda f: patched(qcow2(good(f)), 32, ">I", 1), "it is encrypted"),
    "marked as corrupt": (lambda f: patched(qcow2(good(f)), 72, ">Q", 1 << 1), "marked as corrupt"),
    "a version of the future": (lambda f: patched(qcow2(good(f)), 4, ">I", 9), "version 9 of qcow2"),
    "a size that no volume has": (lambda f: patched(qcow2(good(f)), 24, ">Q", 1 << 60), "at most 16384 GiB"),
    "cut off": (lambda f: truncated(qcow2(good(f))), "it is damaged"),
    "a table that points nowhere": (lambda f: patched(qcow2(good(f)), 0x30000, ">Q", 1 << 50), "it is damaged"),
    "for ARM, without a UEFI loader": (
        lambda f: qcow2(partitioned(f / "a.raw", BIOS_BOOT, ARM_ROOT)),
        "it is for arm64, without a UEFI boot loader",
    ),
    "UEFI alone": (
        lambda f: qcow2(partitioned(f / "a.raw", ESP, LINUX, esp=b"BOOTX64 EFI", code=b"")),
        "boots by UEFI alone",
    ),
    "nothing to boot": (lambda f: qcow2(blank(f / "a.raw")), "nothing to boot"),
    "a text": (lambda f: text(f / "a.qcow2"), "neither a qcow2 image nor a raw disk"),
}


def blank(path: Path) -> Path:
    path.write_bytes(bytes(2 * MIB))
    return path


def text(path: Path) -> Path:
    path.write_text("<html>not found</html>")
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_a_disk_that_cannot_boot_here_is_refused_and_leaves_nothing(tmp_path: Path, case: str) -> None:
    make, why = REFUSED[case]
    file = make(tmp_path)
    with pytest.raises(LocalCloudError, match=why) as told:
        read_image(file, tmp_path / "imports", lambda line: None)
    assert str(file) in str(told.value)
    assert list((tmp_path / "imports").glob("*")) == []


@pytest.mark.parametrize("name", ["x", "a" * 129, "a:b", "ä-image"])
def test_an_invalid_image_name_is_refused_before_the_work(name: str) -> None:
    with pytest.raises(LocalCloudError, match="cannot be named"):
        check_name(name)


def test_a_disk_for_arm64_with_a_uefi_loader_is_taken_and_says_so(tmp_path: Path) -> None:
    raw = partitioned(tmp_path / "a.raw", ESP, ARM_ROOT, esp=b"BOOTAA64EFI", code=b"")
    disk = read_image(raw, tmp_path / "imports", lambda _: None)
    assert (disk.architecture, disk.boot_mode) == ("arm64", "uefi")
    assert disk.boots == "by its own UEFI boot loader, in QEMU"
