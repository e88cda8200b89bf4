"""Check this computer's requirements for the local cloud, and name the one command that installs missing ones."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from imagepipe.local.host.cgroup import hierarchies
from imagepipe.local.machines.qemu import kvm
from imagepipe.local.store import Store

ROOM_BYTES = 5 << 30  # a base image, one build's volume, snapshot and copies, and a reserve

# Debian's and Ubuntu's package of each tool.
TOOLS = {
    "systemd-nspawn": "systemd-container",
    "slirp4netns": "slirp4netns",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "fsfreeze": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "sfdisk": "fdisk",
}
QEMU_TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}
"""Tools for disks with a boot loader of their own, and for images that are imported."""
FOR_CONTAINERS = ("systemd-nspawn", "slirp4netns", "ip", "/dev/net/tun")
"""Requirements that the driver without an init does not have."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MODULES = {"moto": "moto", "cheroot": "cheroot"}


class Verdict(StrEnum):
    """The importance of a finding."""

    OK = "ok"
    NOTE = "note"
    """The local cloud works without it."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """A requirement that was checked."""

    what: str
    verdict: Verdict
    detail: str
    package: str | None = None
    """Debian's package that provides it."""


@dataclass(frozen=True, slots=True)
class Computer:
    """Access to the computer; tests use a substitute."""

    which: Callable[[str], str | None] = shutil.which
    has_module: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None
    exists: Callable[[Path], bool] = Path.exists
    read: Callable[[Path], str] = Path.read_text
    system: str = platform.system()
    machine: str = platform.machine()
    is_root: bool = os.geteuid() == 0
    groups: Callable[[], Sequence[Path]] = hierarchies
    why_no_kvm: Callable[[], str] = kvm.why_not


def examine(store: Store | None = None, computer: Computer | None = None) -> list[Finding]:
    """List the findings that `doctor` shows, in its order; the room for disks only if a store is given."""
    computer = computer or Computer()
    return [*_needs(computer), *([] if store is None else [_room(store)]), *_notes(computer)]


def container_problems(computer: Computer | None = None) -> Sequence[str]:
    """List the reasons why containers would not run here."""
    return failures(_needs(computer or Computer()))


def qemu_problems(computer: Computer | None = None) -> Sequence[str]:
    """List the reasons why QEMU's machines would not run here."""
    computer = computer or Computer()
    lacks = [
        f"{tool}: not found (package {package})" for tool, package in QEMU_TOOLS.items() if not computer.which(tool)
    ]
    return [*failures(_needs(computer)), *lacks]


def sshd_problems(computer: Computer | None = None) -> Sequence[str]:
    """List the reasons why machines with only an sshd would not run here."""
    return failures(finding for finding in _needs(computer or Computer()) if finding.what not in FOR_CONTAINERS)


def failures(findings: Iterable[Finding]) -> list[str]:
    """List the missing requirements, a line each."""
    return [f"{f.what}: {f.detail}" for f in findings if f.verdict is Verdict.MISSING]


def install_command(findings: Iterable[Finding]) -> str | None:
    """Return the one command that installs all missing packages; None if no package is missing."""
    packages = sorted({f.package for f in findings if f.verdict is Verdict.MISSING and f.package})
    return f"apt-get install --yes --no-install-recommends {' '.join(packages)}" if packages else None


def _needs(computer: Computer) -> list[Finding]:
    found = [
        _finding(
            "system",
            computer.system == "Linux" and computer.machine == "x86_64",
            f"{computer.system} {computer.machine}",
            "Linux on x86_64 is needed; this is",
        ),
        _finding("root", computer.is_root, "yes", "containers need it; run this as root, or with sudo"),
    ]
    for tool, package in TOOLS.items():
        where = computer.which(tool)
        found.append(_finding(tool, where is not None, where or "", f"not found (package {package})", package))
    found.append(
        _finding(
            "debian keyring",
            computer.exists(KEYRING),
            str(KEYRING),
            "the base image cannot be verified (package debian-archive-keyring)",
            "debian-archive-keyring",
        )
    )
    for module, name in MODULES.items():
        found.append(
            _finding(f"python: {name}", computer.has_module(module), "installed", "pip install 'imagepipe-ami[local]'")
        )
    for node, module in (("/dev/net/tun", "tun"), ("/dev/loop-control", "loop")):
        found.append(_finding(node, computer.exists(Path(node)), "there", f"not there; try modprobe {module}"))
    groups = computer.groups() if computer.system == "Linux" else []
    found.append(
        _finding(
            "control groups",
            bool(groups) and all(os.access(path, os.W_OK) for path in groups),
            ", ".join(map(str, groups)),
            "not mounted, or not writable: version 2 is needed",
        )
    )
    return found


def _room(store: Store) -> Finding:
    free = shutil.disk_usage(store.root).free
    enough = free >= ROOM_BYTES
    return Finding(
        "room",
        Verdict.OK if enough else Verdict.NOTE,
        f"{free >> 30} GiB free at {store.root}"
        + ("" if enough else f"; {ROOM_BYTES >> 30} GiB are good to have: name another with --store"),
    )


def _notes(computer: Computer) -> list[Finding]:
    notes = [_qemu_note(computer)]
    if _is_port_22_taken(computer):
        notes.append(
            Finding(
                "port 22",
                Verdict.NOTE,
                "a service listens on port 22 of every address; instances get theirs beside it by a relay, and while"
                " they run that service cannot be restarted (ListenAddress in sshd_config avoids both)",
            )
        )
    return notes


def _qemu_note(computer: Computer) -> Finding:
    """Describe QEMU, which only disks with a boot loader need, and its speed here."""
    if missing := sorted({package for tool, package in QEMU_TOOLS.items() if not computer.which(tool)}):
        detail = f"not found: disks with a boot loader of their own do not run (packages {', '.join(missing)})"
        return Finding("qemu", Verdict.NOTE, detail)
    if why_not := computer.why_no_kvm():
        return Finding("qemu", Verdict.NOTE, f"software emulation, half a minute to a login: {why_not}")
    return Finding("qemu", Verdict.OK, "with KVM")


def _is_port_22_taken(computer: Computer) -> bool:
    try:
        lines = computer.read(Path("/proc/net/tcp")).splitlines() + computer.read(Path("/proc/net/tcp6")).splitlines()
    except OSError:
        return False
    anywhere = ("00000000:0016", "00000000000000000000000000000000:0016")
    return any(fields[1] in anywhere and fields[3] == "0A" for fields in map(str.split, lines) if len(fields) > 3)


def _finding(what: str, is_there: bool, detail: str, lack: str, package: str | None = None) -> Finding:
    if is_there:
        return Finding(what, Verdict.OK, detail)
    return Finding(what, Verdict.MISSING, lack, package)
