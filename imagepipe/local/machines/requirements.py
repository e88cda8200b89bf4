"""Check this computer's requirements for the local cloud, and name the one command that installs missing ones.

Root can have every driver. A plain user can have QEMU, whose requirements then differ: user namespaces instead of
control groups and loop devices, and subordinate ids to build the base image.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.extras import command_for_extra
from imagepipe.local.disks.base_image import BUILD_BYTES, built_base
from imagepipe.local.host import rootless
from imagepipe.local.host.cgroup import hierarchies
from imagepipe.local.machines.qemu import boards, kvm
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
PLAIN_TOOLS = {
    **{tool: TOOLS[tool] for tool in TOOLS if tool not in ("systemd-nspawn", "fsfreeze")},
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "debugfs": "e2fsprogs",
    **QEMU_TOOLS,
}
"""Tools for the machines of a plain user."""
TUN = Path("/dev/net/tun")
FOR_CONTAINERS = ("systemd-nspawn", "slirp4netns", "ip", "/dev/net/tun")
"""Requirements that the driver without an init does not have."""
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MODULES = {"moto": "moto", "cheroot": "cheroot"}


NEEDS_ROOT = "root: the driver {driver} needs root; as a plain user, use QEMU: IMAGEPIPE_LOCAL_DRIVER=qemu"


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
    opens: Callable[[Path], bool] = lambda path: os.access(path, os.R_OK | os.W_OK)
    why_no_namespaces: Callable[[], str] = rootless.why_no_namespaces
    lacks_of_ids: Callable[[], Sequence[rootless.Lack]] = rootless.lacks_of_ids
    why_no_kvm: Callable[[], str] = kvm.why_not


def examine(store: Store | None = None, computer: Computer | None = None) -> list[Finding]:
    """List the findings that `doctor` shows, in its order; the room for disks only if a store is given."""
    computer = computer or Computer()
    room = [] if store is None else [_room(store)]
    if computer.is_root:
        needs = _needs(computer)
        return [*needs, *room, *_notes(computer), _driver_of_root(computer, failures(needs))]
    needs = [*_needs_of_plain_user(computer), *_ids(computer, has_base=store is not None and _has_base(store))]
    return [*needs, *room, _qemu_note(computer), _arm_note(computer), _driver_of_plain_user(failures(needs))]


def auto_problems(computer: Computer | None = None) -> Sequence[str]:
    """List the reasons why no machine would run here with the default driver."""
    computer = computer or Computer()
    return container_problems(computer) if computer.is_root else qemu_problems(computer)


def container_problems(computer: Computer | None = None) -> Sequence[str]:
    """List the reasons why containers would not run here."""
    computer = computer or Computer()
    return failures(_needs(computer)) if computer.is_root else [NEEDS_ROOT.format(driver="container")]


def qemu_problems(computer: Computer | None = None) -> Sequence[str]:
    """List the reasons why QEMU's machines would not run here."""
    computer = computer or Computer()
    if not computer.is_root:
        return failures(_needs_of_plain_user(computer))
    lacks = [
        f"{tool}: not found (package {package})" for tool, package in QEMU_TOOLS.items() if not computer.which(tool)
    ]
    return [*failures(_needs(computer)), *lacks]


def sshd_problems(computer: Computer | None = None) -> Sequence[str]:
    """List the reasons why machines with only an sshd would not run here."""
    computer = computer or Computer()
    if not computer.is_root:
        return [NEEDS_ROOT.format(driver="sshd")]
    return failures(finding for finding in _needs(computer) if finding.what not in FOR_CONTAINERS)


def failures(findings: Iterable[Finding]) -> list[str]:
    """List the missing requirements, a line each."""
    return [f"{f.what}: {f.detail}" for f in findings if f.verdict is Verdict.MISSING]


def install_command(findings: Iterable[Finding]) -> str | None:
    """Return the one command that installs all missing packages; None if no package is missing."""
    packages = sorted({f.package for f in findings if f.verdict is Verdict.MISSING and f.package})
    return f"apt-get install --yes --no-install-recommends {' '.join(packages)}" if packages else None


def _needs(computer: Computer) -> list[Finding]:
    found = [_system(computer), *_tools(computer, TOOLS), *_common(computer)]
    for node, module in ((str(TUN), "tun"), ("/dev/loop-control", "loop")):
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


def _needs_of_plain_user(computer: Computer) -> list[Finding]:
    found = [_system(computer), *_tools(computer, PLAIN_TOOLS), *_common(computer)]
    why_not = computer.why_no_namespaces() if computer.which("unshare") else "unshare was not found"
    found.append(
        _finding(
            "user namespaces",
            not why_not,
            "allowed",
            f"{why_not}; root allows them with sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone=1"
            " (Debian before 11) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu from 23.10)",
        )
    )
    lack = "not there; as root: modprobe tun" if not computer.exists(TUN) else "not open to you; as root: chmod 0666"
    found.append(_finding(str(TUN), computer.opens(TUN), "open to you", f"{lack} {TUN}"))
    return found


def _ids(computer: Computer, *, has_base: bool) -> Iterator[Finding]:
    """Check for subordinate ids, with which a plain user builds the base image; later nothing uses them."""
    lacks = computer.lacks_of_ids()
    for lack in lacks:
        if has_base:
            yield Finding(lack.what, Verdict.NOTE, f"{lack.detail}; only a new base image needs it")
        else:
            detail = lack.detail if lack.package else f"{lack.detail}; as root: {lack.remedy}"
            yield Finding(lack.what, Verdict.MISSING, detail, lack.package)
    if not lacks:
        yield Finding("subordinate ids", Verdict.OK, "enough to build the base image")


def _has_base(store: Store) -> bool:
    return built_base(store) is not None


def _driver_of_root(computer: Computer, problems: Sequence[str]) -> Finding:
    if problems:
        return Finding("driver", Verdict.NOTE, "none, until the above is there")
    if any(not computer.which(tool) for tool in QEMU_TOOLS):
        return Finding("driver", Verdict.OK, "container and sshd; qemu is missing")
    return Finding("driver", Verdict.OK, "container, sshd and qemu; auto uses qemu for disks with a boot loader")


def _driver_of_plain_user(problems: Sequence[str]) -> Finding:
    if problems:
        return Finding("driver", Verdict.NOTE, "none, until the above is there: then qemu; the others need root")
    return Finding("driver", Verdict.OK, "qemu, for every machine; container and sshd need root")


def _system(computer: Computer) -> Finding:
    return _finding(
        "system",
        computer.system == "Linux" and computer.machine == "x86_64",
        f"{computer.system} {computer.machine}",
        "Linux on x86_64 is needed; this is",
    )


def _tools(computer: Computer, tools: Mapping[str, str]) -> Iterator[Finding]:
    for tool, package in tools.items():
        where = computer.which(tool)
        yield _finding(tool, where is not None, where or "", f"not found (package {package})", package)


def _common(computer: Computer) -> Iterator[Finding]:
    """Check the parts that both root and a plain user need."""
    yield _finding(
        "debian keyring",
        computer.exists(KEYRING),
        str(KEYRING),
        "the base image cannot be verified (package debian-archive-keyring)",
        "debian-archive-keyring",
    )
    for module, name in MODULES.items():
        yield _finding(f"python: {name}", computer.has_module(module), "installed", command_for_extra("local"))


def _room(store: Store) -> Finding:
    another = "name a folder on another disk in IMAGEPIPE_LOCAL_STORE"
    cache = shutil.disk_usage(store.base_cache).free
    if cache < BUILD_BYTES and not _has_base(store):
        text = f"{cache >> 20} MiB free at {store.base_cache}; the base image needs {BUILD_BYTES >> 20} MiB: {another}"
        return Finding("room", Verdict.MISSING, text)
    free = shutil.disk_usage(store.root).free
    text = f"{free >> 30} GiB free at {store.root}"
    if free < ROOM_BYTES:
        return Finding("room", Verdict.NOTE, f"{text}; {ROOM_BYTES >> 30} GiB are good to have: {another}")
    return Finding("room", Verdict.OK, text)


def _notes(computer: Computer) -> list[Finding]:
    notes = [_qemu_note(computer), _arm_note(computer)]
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


def _arm_note(computer: Computer) -> Finding:
    """Describe the machines of arm64 images, which only imported disks need, and their speed here."""
    if problems := boards.arm_problems(which=computer.which, exists=computer.exists):
        detail = (
            f"images for arm64 do not run (packages {', '.join(sorted(boards.ARM_PACKAGES.values()))}): {problems[0]}"
        )
        return Finding("arm64", Verdict.NOTE, detail)
    return Finding("arm64", Verdict.NOTE, "emulated, and slow: minutes to a login")


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
