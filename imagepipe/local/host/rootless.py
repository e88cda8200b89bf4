"""Work that needs root, done by a plain user in user namespaces (user_namespaces(7)).

In a user namespace that maps the user to root, the user may mount, chroot and configure a network. Files of several
owners need further ids: those that /etc/subuid and /etc/subgid give to the user. Only newuidmap and newgidmap, which
are setuid programs, may map these.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from shutil import which

from imagepipe.dataclass import dataclass
from imagepipe.deletion import delete_tree
from imagepipe.values import HostPorts

IDS = 65535
"""Ids that a distribution's files and users need besides root's."""
CLONE_NEWNET = 0x40000000  # linux/sched.h
CAP_SYS_ADMIN = 21  # linux/capability.h
FIRST_PORT_FILE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
"""The first port that a plain user may bind (the kernel's ip-sysctl)."""
MAP_ALL = ("unshare", "--map-root-user", "--map-auto")
"""Command prefix of a namespace in which the user is root and has the subordinate ids as other users."""


SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def find_system_tools(environ: MutableMapping[str, str]) -> None:
    """Add the folders of mkfs.ext4 and the like to PATH: Debian's plain users do not have them there."""
    present = environ.get("PATH", os.defpath).split(":")
    environ["PATH"] = ":".join([*present, *(folder for folder in SYSTEM_FOLDERS if folder not in present)])


def is_plain_user() -> bool:
    """Tell if this process is not root."""
    return os.geteuid() != 0


def may_mount(*, read: Callable[[Path], str] = Path.read_text) -> bool:
    """Tell if this process has CAP_SYS_ADMIN, as root has unless a container took it away."""
    line = next(line for line in read(Path("/proc/self/status")).splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)


def as_root() -> tuple[str, ...]:
    """Return the prefix of commands that need root and several owners of files; empty for root itself."""
    return MAP_ALL if is_plain_user() else ()


def host_ports(*, read: Callable[[Path], str] = Path.read_text) -> HostPorts:
    """Return the ports of this computer at which the ports of this user's machines are open."""
    if not is_plain_user():
        return HostPorts()
    try:
        return HostPorts(first_real=int(read(FIRST_PORT_FILE)))
    except (OSError, ValueError):  # Linux before 4.11
        return HostPorts(first_real=1024)


def why_no_namespaces() -> str:
    """Return the reason why a plain user gets no namespaces; empty if they work."""
    command = ["unshare", "--map-root-user", "--mount", "--net", "--pid", "--fork", "true"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unshare was not found"
    return "" if done.returncode == 0 else done.stderr.strip() or f"unshare exited with {done.returncode}"


def unshare_network() -> None:
    """Give the calling thread, and what it starts from now on, an empty network of its own. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@dataclass(frozen=True, slots=True)
class Lack:
    """A requirement for several owners of files that is not met."""

    what: str
    detail: str
    remedy: str
    """A command for root."""
    package: str | None = None


def user_name() -> str:
    """Return the user's name, or the id if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _unshare_help() -> str:
    try:
        return subprocess.run(
            ["unshare", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        ).stdout
    except FileNotFoundError:
        return ""


def lacks_of_ids(
    *,
    user: str | None = None,
    which: Callable[[str], str | None] = which,
    read: Callable[[Path], str] = Path.read_text,
    unshare_help: Callable[[], str] = _unshare_help,
) -> list[Lack]:
    """List what a plain user lacks to build files of several owners."""
    user = user or user_name()
    found = [
        Lack(tool, "not found (package uidmap)", "apt-get install uidmap", "uidmap")
        for tool in ("newuidmap", "newgidmap")
        if not which(tool)
    ]
    if "--map-auto" not in unshare_help():
        found.append(Lack("unshare --map-auto", "not known here", "upgrade util-linux to 2.38 or newer"))
    for file, option in (("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")):
        try:
            text = read(Path(file))
        except OSError:
            text = ""
        if _first_range(text, user) < IDS:
            found.append(
                Lack(
                    file,
                    f"no line gives {user} {IDS} ids, such as {user}:100000:{IDS + 1}",
                    f"usermod {option} 100000-{100000 + IDS} {user}",
                )
            )
    return found


def _first_range(text: str, user: str) -> int:
    """Return the size of the user's first range, which is the one that unshare maps (subuid(5))."""
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) == 3 and fields[0] in (user, str(os.geteuid())) and fields[2].isdecimal():
            return int(fields[2])
    return 0


def delete(folder: Path) -> None:
    """Delete a folder, also one with files of subordinate ids, which only their namespace may delete.

    Raises OSError.
    """
    try:
        delete_tree(folder)
    except PermissionError:
        if not is_plain_user():
            raise
        command = [*MAP_ALL, sys.executable, "-m", "imagepipe.local.host.rootless", str(folder)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            number = int(done.stdout) if done.stdout.strip().isdecimal() else errno.EPERM
            raise OSError(number, os.strerror(number), str(folder)) from None


def main(arguments: Sequence[str]) -> int:
    """FOLDER: delete it, inside the namespace; print the number of the error."""
    try:
        delete_tree(Path(arguments[0]))
    except OSError as problem:
        sys.stdout.write(f"{problem.errno}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
