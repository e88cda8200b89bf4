"""The boards of virtual machines: QEMU's program, machine, processor and firmware for each architecture.

x86_64 machines have a BIOS, and use KVM if it works. arm64 machines have UEFI (Debian's qemu-efi-aarch64). An x86_64
computer emulates their processor, which is slow.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import ARM
from imagepipe.local.machines.qemu.passed_files import PassedFiles

X86 = "x86_64"
OWN = {"aarch64": ARM, "x86_64": X86}.get(platform.machine(), X86)
"""This computer's architecture, as EC2 names it."""
UEFI_VARIABLES = "uefi-vars.fd"
"""File in a machine's folder with the variables of its firmware."""
FIRMWARE_FOLDERS = (Path("/usr/share/AAVMF"), Path("/usr/share/edk2/aarch64"))
"""Folders of the UEFI firmware for arm64: Debian and Ubuntu; Fedora."""
FIRMWARE_FILES = (("AAVMF_CODE.fd", "AAVMF_VARS.fd"), ("QEMU_EFI-pflash.raw", "vars-template-pflash.raw"))
PROGRAMS = {X86: "qemu-system-x86_64", ARM: "qemu-system-aarch64"}
ARM_PACKAGES = {"qemu-system-aarch64": "qemu-system-arm", "AAVMF_CODE.fd": "qemu-efi-aarch64"}
"""Debian's package of each requirement of arm64 machines."""


@dataclass(frozen=True, slots=True)
class Firmware:
    """UEFI for arm64: the code, and a template of its variables."""

    code: Path
    variables: Path


def firmware(exists: Callable[[Path], bool] = Path.is_file) -> Firmware | None:
    """Return the UEFI firmware for arm64; None if it is not installed."""
    for folder in FIRMWARE_FOLDERS:
        for code, variables in FIRMWARE_FILES:
            if exists(folder / code) and exists(folder / variables):
                return Firmware(folder / code, folder / variables)
    return None


def arm_problems(
    *, which: Callable[[str], str | None] = shutil.which, exists: Callable[[Path], bool] = Path.is_file
) -> list[str]:
    """List the reasons why arm64 machines would not run here."""
    lacks = []
    if which(PROGRAMS[ARM]) is None:
        lacks.append(f"{PROGRAMS[ARM]}: not found (package {ARM_PACKAGES[PROGRAMS[ARM]]})")
    if firmware(exists) is None:
        lacks.append(f"UEFI for arm64: not found (package {ARM_PACKAGES['AAVMF_CODE.fd']})")
    return lacks


def arguments(document: Mapping[str, Any], folder: Path, files: PassedFiles) -> list[str]:
    """Return the program and the options of a machine's board. Raises MachineError without a firmware for it."""
    processors = str(min(2, os.cpu_count() or 1))
    architecture = str(document.get("architecture", X86))
    common = [
        PROGRAMS[architecture], "-name", str(document["id"]), "-nodefaults", "-display", "none", "-no-reboot",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-smp", processors, "-m", "1024",
    ]  # fmt: skip
    has_kvm = document["accelerator"] == "kvm"
    emulated = ["-accel", "tcg,thread=multi,tb-size=512"]
    if architecture == X86:
        chosen = ["-accel", "kvm", "-cpu", "host"] if has_kvm else [*emulated, "-cpu", "max"]
        return [*common, "-machine", "q35", *chosen]
    # Graviton2's processor. It has no pointer authentication, whose emulation takes half of the time.
    chosen = ["-accel", "kvm", "-cpu", "host"] if has_kvm else [*emulated, "-cpu", "neoverse-n1"]
    return [*common, "-machine", "virt", *chosen, *_uefi(folder, files)]


def _uefi(folder: Path, files: PassedFiles) -> list[str]:
    """Return the options of the two flash memories; the machine's own variables are kept over its reboots."""
    found = firmware()
    if found is None:
        raise MachineError(f"UEFI for arm64 was not found; apt-get install {ARM_PACKAGES['AAVMF_CODE.fd']}")
    own = folder / UEFI_VARIABLES
    if not own.exists():
        shutil.copyfile(found.variables, own)
        own.chmod(0o600)
    code = files.name(found.code, os.O_RDONLY)
    variables = files.name(own, os.O_RDWR, os.O_RDONLY)
    return [
        "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
        "-drive", f"if=pflash,unit=1,format=raw,file={variables},file.locking=off",
    ]  # fmt: skip
