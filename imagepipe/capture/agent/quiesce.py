"""Quiesce the machine: stop all writes to its root, and keep SSH logins possible, from memory."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from imagepipe.capture.agent import mounts
from imagepipe.capture.agent.errors import AgentError, output_of

KEPT_UNITS = ("ssh", "systemd-logind", "dbus", "systemd-networkd", "networking", "NetworkManager", "ifup@", "dhc",
              "systemd-udevd", "systemd-resolved", "user-runtime-dir")  # fmt: skip
"""Units that logins need. Their processes are killed if they write to the root, but the units are not stopped."""
ROUNDS = 5
PAUSE_SECONDS = 0.3
CLOSE_TRIES = 40
READ_ONLY_SECONDS = 20


class Writer(NamedTuple):
    """A process that writes to the root."""

    pid: int
    name: str
    unit: str
    """Unit of systemd; empty if the process belongs to none."""


def is_container() -> bool:
    """Return whether this is a container, whose kernel belongs to its host, so that kernel-wide actions are forbidden.

    On a real machine, process 2 is kthreadd, the parent of kernel threads, and the first process has our root. If
    either cannot be seen, this counts as a container.
    """
    with suppress(OSError):
        is_kernel_ours = Path("/proc/2/comm").read_text().strip() == "kthreadd"
        return not (is_kernel_ours and Path("/proc/1/root").stat().st_dev == Path("/").stat().st_dev)
    return True


def keep_way_in(user: str, folder: Path) -> None:
    """Mount copies in memory over the files that an SSH login needs, so that those on the disk can be scrubbed."""
    places = ["/etc/ssh", "/etc/sudoers.d"]
    with suppress(KeyError):
        places.append(os.path.join(pwd.getpwnam(user).pw_dir, ".ssh"))  # noqa: PTH118 - a path of the machine
    for number, place in enumerate(places):
        if not Path(place).is_dir() or os.path.ismount(place):
            continue
        copy = folder / f"way-in-{number}"
        mounts.delete_tree(copy)  # left by an agent that was killed: `cp` would copy into it
        output_of(["cp", "-a", place, str(copy)], doing="preserving SSH logins")
        mounts.bind(str(copy), place)


def end_writers(root: Path, say: Callable[[str], None]) -> list[Writer]:
    """Stop the processes that write to the file system of this folder, and return those that are left.

    Services are stopped with systemctl; other processes get SIGTERM, then SIGKILL.
    """
    device = root.stat().st_dev
    if _has_systemd():
        # Timers and path units first, so that they start nothing new.
        _quietly(["systemctl", "stop", "*.timer", "*.path", "cron.service", "crond.service", "atd.service"])
    for attempt in range(ROUNDS):
        left = list(writers(device))
        if not left:
            break
        units = sorted({each.unit for each in left if each.unit and not each.unit.startswith(KEPT_UNITS)})
        may_stop = attempt < ROUNDS - 2  # in the last rounds, units that did not stop are killed
        if units and may_stop:
            say("stopping {}".format(", ".join(units)))
            _stop(units)
        for each in left:
            if each.unit not in units or not may_stop:
                with suppress(ProcessLookupError):
                    os.kill(each.pid, signal.SIGTERM if attempt == 0 and not each.unit else signal.SIGKILL)
        time.sleep(PAUSE_SECONDS)
    return list(writers(device))


def close_root(say: Callable[[str], None]) -> None:
    """Prevent processes from opening files of the root for writing; our own view of it stays writable.

    This also stops processes that write only briefly, or that are restarted. If it is impossible,
    changed files are noticed afterwards.
    """
    problem: OSError | None = None
    for _ in range(CLOSE_TRIES):
        try:
            mounts.remount_view_read_only("/")
        except OSError as error:
            problem = error
            time.sleep(0.05)
        else:
            return
    say(f"processes can still open files of the root for writing: {problem}")


def make_read_only(points: list[str], say: Callable[[str], None]) -> None:
    """Make these file systems read-only, including the root. Raises AgentError, which names remaining writers."""
    os.sync()
    for point in sorted(points, key=len, reverse=True):
        try:
            mounts.remount_read_only(point)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise AgentError(f"making {point} read-only: {error.strerror}") from error
    if are_read_only(points):
        return
    if is_container() or not Path("/proc/sysrq-trigger").exists():
        raise AgentError(
            f"making the root read-only: {_busy('/')}",
            "stop these processes in a provisioning step, or use method: tree",
        )
    # Deleted libraries that our own connection uses are enough to make the root busy; SysRq works anyway.
    say("the root is in use: asking the kernel to make all file systems read-only")
    Path("/proc/sysrq-trigger").write_text("u")
    until = time.monotonic() + READ_ONLY_SECONDS
    while not are_read_only(points):
        if time.monotonic() > until:
            raise AgentError(f"making the root read-only: it is still writable after {READ_ONLY_SECONDS} s")
        time.sleep(0.1)


def scrub(script: Path, key: str, root: Path, others: list[str], say: Callable[[str], None]) -> None:
    """Remove the build's traces from the disk, which is mounted at `root`. Raises AgentError.

    The login files in memory (`keep_way_in`) are not under `root`, so logins stay possible.

    Runs in its own mount namespace: the script's /dev and /proc are mounted only there.
    """
    setup = [
        "set -e",
        f"for folder in dev proc sys run; do mount --rbind /$folder {root}/$folder; done",
        *(f"mount --bind {_quoted(point)} {root}{_quoted(point)}" for point in others),
        f'exec chroot {root} sh {script} "$1"',
    ]
    command = ["unshare", "--mount", "sh", "-c", "\n".join(setup), "imagepipe-scrub", key]
    for line in output_of(command, doing="scrubbing the root").splitlines():
        say(line)  # files that the script left alone


def writers(device: int) -> Iterator[Writer]:
    """Yield the processes that have a file of this device open for writing, or a deleted one; skip our ancestors."""
    spared = set(_ancestors())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        with suppress(OSError):
            if _writes(entry, device):
                yield Writer(int(entry.name), (entry / "comm").read_text().strip(), _unit(entry))


def _writes(process: Path, device: int) -> bool:
    for fd in (process / "fd").iterdir():
        with suppress(OSError):
            seen = fd.stat()
            if seen.st_dev != device or not stat.S_ISREG(seen.st_mode):
                continue
            flags = (process / "fdinfo" / fd.name).read_text().split("flags:", 1)[1].split()[0]
            if int(flags, 8) & os.O_ACCMODE or seen.st_nlink == 0:
                return True
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}"
    for line in (process / "maps").read_text(errors="replace").splitlines():
        fields = line.split(None, 5)
        if fields[3] == wanted and ("ws" in (fields[1][1] + fields[1][3]) or line.endswith("(deleted)")):
            return True
    return False


def _unit(process: Path) -> str:
    return unit_of((process / "cgroup").read_text())


def unit_of(cgroups: str) -> str:
    """Return the service of a process from /proc/PID/cgroup; a user's services belong to the system's `user@UID`."""
    for line in cgroups.splitlines():
        services = [part for part in line.split("/") if part.endswith(".service")]
        managers = [part for part in services if part.startswith("user@")]
        if services:
            return (managers or services)[-1]
    return ""


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        pid = int(fields[1])


def _stop(units: list[str]) -> None:
    """Stop units together with the sockets that would start them again."""
    triggers = []
    with suppress(AgentError):
        output = output_of(
            ["systemctl", "show", "--property=TriggeredBy", *units], doing="listing the triggers of units"
        )
        triggers = [word for line in output.splitlines() for word in line.partition("=")[2].split()]
    _quietly(["systemctl", "stop", *triggers, *units])


def _quietly(command: list[str]) -> None:
    with suppress(AgentError):  # remaining writers are checked afterwards
        output_of(command, doing="stopping services", seconds=90)


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def are_read_only(points: list[str]) -> bool:
    """Return whether nobody can write to these file systems."""
    return all(each.is_read_only for each in mounts.mounted() if each.point in points)


def _busy(point: str) -> str:
    left = sorted(f"{each.name} ({each.pid})" for each in writers(Path(point).stat().st_dev))
    return f"{', '.join(left)} still write" if left else "it is in use"


def _quoted(text: str) -> str:
    return "'{}'".format(text.replace("'", "'\\''"))
