"""The kernel of a disk that is a bare file system: QEMU boots it directly, as there is no boot loader."""

from __future__ import annotations

import re
from pathlib import Path

from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.tools import run_tool

NAMES = (("/vmlinuz", "/initrd.img"), ("/boot/vmlinuz", "/boot/initrd.img"))
"""Debian's and Ubuntu's links to the newest kernel."""
PLAIN = re.compile(r"[A-Za-z0-9._+/-]+")
"""Targets that a link may have: they become words of a debugfs command."""
LINK = re.compile(r'Fast link dest: "(.*)"')


def extract(disk: Path, folder: Path) -> tuple[Path, Path]:
    """Copy the disk's newest kernel and its initrd into the folder. Raises MachineError. Mounts nothing."""
    copies = folder / "kernel", folder / "initrd"
    for names in NAMES:
        targets = [_target(disk, name) for name in names]
        if all(targets):
            for target, path in zip(targets, copies, strict=True):
                path.unlink(missing_ok=True)
                _debugfs(disk, f"dump {target} {path.name}", folder)
                if not path.exists() or not path.stat().st_size:
                    raise MachineError(f"taking {target} out of {disk}: it does not exist, or it is empty")
            return copies
    where = " or ".join(kernel for kernel, _ in NAMES)
    raise MachineError(f"{disk} is a bare file system without a kernel of its own: no link {where}")


def _target(disk: Path, name: str) -> str:
    """Return the target of a link in the file system, as an absolute path, or an empty string if it is not a link."""
    found = LINK.search(_debugfs(disk, f"stat {name}"))
    if found is None:
        return ""
    target = found[1]
    if not PLAIN.fullmatch(target):
        raise MachineError(f"{disk}: {name} points to {target!r}")
    return target if target.startswith("/") else f"{name.rpartition('/')[0]}/{target}"


def _debugfs(disk: Path, request: str, folder: Path | None = None) -> str:
    return run_tool(["debugfs", "-R", request, str(disk)], error=MachineError, accept=(0, 1), folder=folder)
