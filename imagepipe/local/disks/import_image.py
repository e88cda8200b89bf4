"""Import a disk image as a disk of the local cloud: a distribution's cloud image, or any other.

The file is not trusted. If its header could make qemu-img read other files of this computer (a backing file, external
data), it is refused before qemu-img opens it. Nothing in it is mounted.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.errors import LocalCloudError
from imagepipe.local.disks.contents import MIN_DISK_BYTES, SECTOR, is_bare, read_partitions
from imagepipe.local.disks.files import RESERVE_BYTES
from imagepipe.local.host.processes import kill_group, start_time
from imagepipe.local.host.tools import try_tool

Progress = Callable[[str], None]

QCOW2_MAGIC = b"QFI\xfb"
# QEMU's docs/interop/qcow2.txt: magic, version, backing file offset and size, cluster bits, size, encryption
QCOW2_HEADER = struct.Struct(">4s I Q I I Q I")
FEATURES_AT = 72
CORRUPT, EXTERNAL_DATA = 1 << 1, 1 << 2
GIB = 1 << 30
MAX_GIB = 16384  # of a gp3 volume
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
ARM_ROOT = "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
ESP_BYTES = 512 << 20
LOADERS = {b"BOOTX64 EFI": "x86_64", b"BOOTAA64EFI": "arm64", b"BOOTIA32EFI": "i386"}
"""Architectures by the loader's name in a FAT directory (UEFI specification, "Boot mechanisms", removable media)."""
ELF_MACHINES = {62: "x86_64", 183: "arm64", 3: "i386"}
NAME = re.compile(r"[A-Za-z0-9()\[\]./\-'@_ ]{3,128}")


@dataclass(frozen=True, slots=True)
class DiskImage:
    """A raw disk, ready to be a snapshot."""

    path: Path
    size_gib: int
    boots: str
    """A description of its boot, for people."""
    architecture: str = "x86_64"

    @property
    def boot_mode(self) -> str:
        """The boot mode of its image: arm64 has no BIOS."""
        return "uefi" if self.architecture == "arm64" else "legacy-bios"


def read_image(source: Path, folder: Path, progress: Progress) -> DiskImage:
    """Convert the file to a raw disk in this folder. Raises LocalCloudError, and then leaves nothing behind.

    qcow2, and raw disks. Sparse stays sparse; the size is rounded up to whole GiB, as volumes have them.
    """
    doing = f"importing {source}"
    _check_tool(doing)
    form = _format(source, doing)
    target = folder / f"{os.getpid()}.raw"
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.glob("*.raw"):  # by an import that was killed
        if not Path(f"/proc/{left.stem}").exists():
            left.unlink(missing_ok=True)
    try:
        if form == "qcow2":
            progress(f"checking {source.name}")
            _check_qcow2(source, doing)
        _check_room(source, form, folder, doing)
        progress(f"reading {source.name}")
        _convert(source, form, target, doing, progress)
        target.chmod(0o600)
        size_gib = max(1, -(-target.stat().st_size // GIB))
        architecture, boots = _how_it_boots(target, doing)
        os.truncate(target, size_gib * GIB)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return DiskImage(target, size_gib, boots, architecture)


def check_name(name: str) -> None:
    """Raise LocalCloudError if an image cannot have this name."""
    if not NAME.fullmatch(name):
        raise LocalCloudError(
            f"an image cannot be named {name!r}",
            hint="3 to 128 characters: letters, digits, spaces and ( ) [ ] . / - ' @ _ ; name it with --name",
        )


def _check_tool(doing: str) -> None:
    if shutil.which("qemu-img") is None:
        raise LocalCloudError(f"{doing}: qemu-img is not installed", hint="apt-get install qemu-utils qemu-system-x86")


def _format(source: Path, doing: str) -> str:
    try:
        size = source.stat().st_size
        with source.open("rb") as file:
            header = file.read(FEATURES_AT + 8)
    except OSError as problem:
        raise LocalCloudError(f"{doing}: {problem.strerror}") from problem
    if header[:4] != QCOW2_MAGIC:
        if size < MIN_DISK_BYTES or size % SECTOR:
            raise LocalCloudError(
                f"{doing}: neither a qcow2 image nor a raw disk ({size} bytes)",
                hint="unpack it first where it is compressed (.xz, .gz); other formats: qemu-img convert -O qcow2",
            )
        return "raw"
    if len(header) < QCOW2_HEADER.size:
        raise LocalCloudError(f"{doing}: the file ends in its own header")
    _, version, backing, _, _, virtual, encryption = QCOW2_HEADER.unpack_from(header)
    features = (
        struct.unpack_from(">Q", header, FEATURES_AT)[0] if version >= 3 and len(header) >= FEATURES_AT + 8 else 0
    )
    if version not in (2, 3):
        raise LocalCloudError(f"{doing}: version {version} of qcow2 is not known")
    for is_so, what in (
        (backing, "it needs a backing file"),
        (features & EXTERNAL_DATA, "its data is in another file"),
        (encryption, "it is encrypted"),
    ):
        if is_so:
            raise LocalCloudError(f"{doing}: {what}", hint="make it whole: qemu-img convert -O qcow2 FILE WHOLE.qcow2")
    if features & CORRUPT:
        raise LocalCloudError(f"{doing}: it is marked as corrupt", hint="fetch it again, and compare its checksum")
    if not 0 < virtual <= MAX_GIB * GIB:
        raise LocalCloudError(f"{doing}: a disk of {virtual} bytes; a volume has at most {MAX_GIB} GiB")
    return "qcow2"


def _check_qcow2(source: Path, doing: str) -> None:
    done = try_tool(["qemu-img", "check", "-f", "qcow2", "--output=json", str(source)])
    report: dict[str, object] = {}
    if done.stdout.strip().startswith("{"):
        report = json.loads(done.stdout)
    if done.returncode == 0 or (done.returncode == 3 and not report.get("corruptions")):  # 3: leaks, which harm nobody
        return
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    why = f"{report['corruptions']} corruptions" if report.get("corruptions") else last
    raise LocalCloudError(f"{doing}: it is damaged: {why}", hint="fetch it again, and compare its checksum")


def _check_room(source: Path, form: str, folder: Path, doing: str) -> None:
    done = try_tool(["qemu-img", "measure", "-f", form, "-O", "qcow2", "--output=json", str(source)])
    needed = int(json.loads(done.stdout)["required"]) if done.returncode == 0 else source.stat().st_size
    free = shutil.disk_usage(folder).free
    if free - needed < RESERVE_BYTES:
        raise LocalCloudError(
            f"{doing}: {needed >> 20} MiB are needed, and {folder} has {free >> 20} MiB free,"
            f" of which {RESERVE_BYTES >> 20} MiB stay in reserve"
        )


def _convert(source: Path, form: str, target: Path, doing: str, progress: Progress) -> None:
    command = ["qemu-img", "convert", "-p", "-f", form, "-O", "raw", "-S", "4k", str(source), str(target)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        started = start_time(process.pid)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            shown, text = 0, b""
            while chunk := os.read(process.stdout.fileno(), 4096):
                text = (text + chunk)[-64:]
                if found := re.findall(rb"\(([0-9]+)\.", text):
                    percent = int(found[-1])
                    if percent >= shown + 20:
                        shown = percent
                        progress(f"reading {source.name}: {percent} %")
            errors = process.stderr.read().decode(errors="replace").strip()
        except BaseException:
            kill_group(process.pid, started)
            raise
    if process.returncode != 0:
        last = (errors.splitlines() or [f"exit {process.returncode}"])[-1]
        raise LocalCloudError(f"{doing}: {last}", hint="fetch it again, and compare its checksum")


def _how_it_boots(disk: Path, doing: str) -> tuple[str, str]:
    """Return the disk's architecture, and how it boots. Raises LocalCloudError if it does not boot here."""
    if is_bare(disk):
        architecture = _of_bare(disk)
        if architecture not in ("", "x86_64"):
            raise LocalCloudError(
                f"{doing}: it is a bare file system for {architecture}; bare ones boot only for x86_64",
                hint="import a whole disk, with a partition table and a boot loader",
            )
        return "x86_64", "a bare file system: by its own kernel, in QEMU"
    with disk.open("rb") as file:
        first = file.read(SECTOR)
    if first[510:512] != b"\x55\xaa":
        raise LocalCloudError(
            f"{doing}: no partition table and no file system that is known: nothing to boot",
            hint="is it a whole disk, and of an operating system? ext4 alone is known as a bare file system",
        )
    kinds, loaders = _partitions(disk)
    has_bios = any(first[:440]) or BIOS_BOOT in kinds
    if "arm64" in loaders and "x86_64" not in loaders:
        return "arm64", "by its own UEFI boot loader, in QEMU"
    if ARM_ROOT in kinds or (loaders and "x86_64" not in loaders):
        found = ", ".join(sorted(loaders)) or "arm64, without a UEFI boot loader"
        raise LocalCloudError(
            f"{doing}: it is for {found}, and the local cloud boots x86_64, and arm64 by UEFI",
            hint="take the amd64 (x86_64) or the arm64 image",
        )
    if not has_bios:
        raise LocalCloudError(
            f"{doing}: it boots by UEFI alone, and the local cloud's firmware is a BIOS",
            hint="the cloud images of Debian, Ubuntu and Amazon boot by both",
        )
    return "x86_64", "by its own boot loader, in QEMU"


def _of_bare(disk: Path) -> str:
    """Return the architecture of a bare ext file system's programs; empty if it has none."""
    for program in ("/usr/bin/env", "/bin/ls", "/bin/busybox"):
        done = subprocess.run(
            ["debugfs", "-R", f"cat {program}", str(disk)], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.stdout[:4] == b"\x7fELF":
            return ELF_MACHINES.get(struct.unpack_from("<H", done.stdout, 18)[0], "another processor")
    return ""


def _partitions(disk: Path) -> tuple[set[str], set[str]]:
    """Return the types of the disk's partitions, and the processors of its UEFI loaders."""
    partitions = read_partitions(disk)
    loaders: set[str] = set()
    with disk.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for partition in partitions:
            if partition.type in (ESP, "EF"):
                end = min(partition.offset + min(partition.size, ESP_BYTES), len(view))
                loaders |= {name for mark, name in LOADERS.items() if view.find(mark, partition.offset, end) >= 0}
    return {partition.type for partition in partitions}, loaders
