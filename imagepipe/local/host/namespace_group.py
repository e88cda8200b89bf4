"""The processes of a plain user's machine, who may make no control groups: those of one process namespace.

The namespace's first process is the machine's supervisor. When that ends, the kernel kills all others before anybody
sees the end (pid_namespaces(7)). So to find the supervisor is to find them all, and to kill it is to kill them all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.rootless import is_plain_user
from imagepipe.local.host.waiting import tries

PROC = Path("/proc")


class Group(Protocol):
    """All processes of a machine, however they were started."""

    def make(self) -> None:
        """Make the group; an existing one is success."""

    def processes(self) -> Iterator[int]:
        """List the members."""

    def kill(self) -> None:
        """Send SIGKILL to every member. Returns at once."""

    def wait_empty(self, seconds: float) -> bool:
        """Wait so many seconds at most until the group is empty; return false if it is not."""

    def remove(self) -> None:
        """Delete the empty group; gone already is success."""


class NamespaceGroup:
    """The process namespace of one machine, whose supervisor's last argument is a folder named like the machine."""

    def __init__(self, machine_id: str, *, proc: Path = PROC) -> None:
        self._machine_id = machine_id
        self._proc = proc

    def make(self) -> None:
        """Do nothing: the supervisor begins the namespace."""

    def leader(self) -> int | None:
        """Return the supervisor's process id, as the host numbers it; None if it does not run."""
        for pid in self._all():
            with suppress(OSError, StopIteration):
                words = (self._proc / str(pid) / "cmdline").read_bytes().split(b"\0")
                if len(words) > 1 and Path(os.fsdecode(words[-2])).name == self._machine_id and self._is_first(pid):
                    return pid
        return None

    def processes(self) -> Iterator[int]:
        """List the members, the supervisor among them."""
        leader = self.leader()
        namespace = self._namespace(leader) if leader is not None else ""
        if namespace:
            yield from (pid for pid in self._all() if self._namespace(pid) == namespace)

    def kill(self) -> None:
        """Send SIGKILL to every member. Returns at once."""
        leader = self.leader()
        if leader is not None:
            with suppress(ProcessLookupError):
                os.kill(leader, signal.SIGKILL)

    def wait_empty(self, seconds: float) -> bool:
        """Wait so many seconds at most until the group is empty; return false if it is not."""
        return any(self.leader() is None for _ in tries(seconds, pause=0.01))

    def remove(self) -> None:
        """Do nothing: the namespace ends with its processes."""

    def _all(self) -> list[int]:
        return sorted(int(folder.name) for folder in self._proc.iterdir() if folder.name.isdecimal())

    def _is_first(self, pid: int) -> bool:
        """Tell if this is the first process of a namespace below ours (proc(5), NSpid), and no zombie."""
        lines = (self._proc / str(pid) / "status").read_text().splitlines()
        numbers = next(line for line in lines if line.startswith("NSpid:")).split()[1:]
        state = next(line for line in lines if line.startswith("State:")).split()[1]
        return len(numbers) > 1 and numbers[-1] == "1" and state not in "ZX"

    def _namespace(self, pid: int) -> str:
        """Return the process namespace of a process; empty if it has ended, or is another user's."""
        try:
            return str((self._proc / str(pid) / "ns" / "pid").readlink())
        except OSError:
            return ""


def group_of(machine_id: str) -> Group:
    """Return the group of a machine: a control group for root, a process namespace for a plain user."""
    return NamespaceGroup(machine_id) if is_plain_user() else MachineGroup(machine_id)
