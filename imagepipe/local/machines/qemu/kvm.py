"""Find out if KVM works here. /dev/kvm can exist and be accessible while its guests hang, so a guest is tried."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from imagepipe.local.disks.contents import MIN_DISK_BYTES
from imagepipe.local.host import rootless

DEVICE = Path("/dev/kvm")
CPUINFO = Path("/proc/cpuinfo")
SECONDS = 5.0  # an answer takes half a second, the firmware included
# A boot sector: mov al, 0x15; out 0xf4, al; hlt. The debug device ends QEMU with (value << 1) | 1.
SECTOR = b"\xb0\x15\xe6\xf4\xf4".ljust(510, b"\0") + b"\x55\xaa"
ANSWER = 0x15 << 1 | 1


@cache
def why_not() -> str:
    """Return the reason for software emulation; empty if KVM runs a guest. Tried once in a process."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        if DEVICE.exists() and rootless.is_plain_user():
            return f"{DEVICE} is not open to you; its group, usually kvm, may open it"
        return f"{DEVICE} is not there, or not open to us"
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", CPUINFO.read_text(), re.MULTILINE):
        return f"{DEVICE} is there, but the processor shows neither vmx nor svm"
    if not answers("kvm"):
        return f"{DEVICE} is there, but a guest that was tried did not answer"
    return ""


def answers(accelerator: str) -> bool:
    """Tell if a guest of three instructions, started by the firmware, answers with this accelerator."""
    with tempfile.NamedTemporaryFile(prefix="imagepipe-probe-") as disk:
        disk.write(SECTOR.ljust(MIN_DISK_BYTES, b"\0"))
        disk.flush()
        command = [
            "qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "64",
            "-accel", accelerator, "-device", "isa-debug-exit,iobase=0xf4,iosize=0x01",
            "-drive", f"file={disk.name},format=raw,if=none,id=disk",
            "-device", "virtio-blk-pci,drive=disk,bootindex=1",
        ]  # fmt: skip
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return False
    return done.returncode == ANSWER
