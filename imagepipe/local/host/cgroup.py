"""A control group per machine: all its processes can be found and killed, whatever became of those who started them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imagepipe.local.host.waiting import tries

PREFIX = "imagepipe-"


class MachineGroup:
    """The group of one machine, in the unified hierarchy and, where there is one, in systemd's of version 1.

    nspawn with --keep-unit puts every container into one group of its caller: each caller needs its own.
    """

    def __init__(self, machine_id: str) -> None:
        self._folders = [root / f"{PREFIX}{machine_id}" for root in hierarchies()]

    def make(self) -> None:
        """Make the group; an existing one is success."""
        for folder in self._folders:
            folder.mkdir(exist_ok=True)

    def procs_files(self) -> list[Path]:
        """Return the files into which a process writes its id to become a member."""
        return [folder / "cgroup.procs" for folder in self._folders]

    def processes(self) -> Iterator[int]:
        """List the members of the group and of all groups below it."""
        seen: set[int] = set()
        for folder in self._folders:
            for group in _groups(folder):
                with suppress(OSError):
                    seen.update(int(pid) for pid in (group / "cgroup.procs").read_text().split())
        yield from sorted(seen)

    def init(self) -> int | None:
        """Return the container's PID 1 as the host numbers it, while it runs."""
        for pid in self.processes():
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(numbers) > 1 and numbers[-1] == "1":
                    return pid
        return None

    def kill(self) -> None:
        """Send SIGKILL to every member. Returns at once."""
        for folder in self._folders:
            with suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
        for pid in self.processes():  # version 1 has no cgroup.kill, nor have kernels before 5.14
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_empty(self, seconds: float) -> bool:
        """Wait so many seconds at most until the group is empty; return false if it is not."""
        return any(not list(self.processes()) for _ in tries(seconds, pause=0.01))

    def remove(self) -> None:
        """Delete the empty group; gone already is success."""
        for folder in self._folders:
            for path in sorted(_groups(folder), key=lambda p: -len(p.parts)):
                with suppress(OSError):
                    path.rmdir()


def _groups(folder: Path) -> Iterator[Path]:
    """List a group and all groups below it.

    A machine that boots or stops makes and removes them meanwhile: os.walk ignores that, where Path.rglob raises
    FileNotFoundError.
    """
    for where, _, _ in os.walk(folder):
        yield Path(where)


def hierarchies() -> list[Path]:
    """List the hierarchies in which groups are made: version 2, and version 1's systemd hierarchy beside it."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(where))
    return found
