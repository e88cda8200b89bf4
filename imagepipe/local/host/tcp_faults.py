"""Network faults of a machine, whatever its driver: its connections are reset, or its ports answer late.

All drivers' machines have their ports on an address of this computer's own, held by a process of the machine's group.
Its sockets are found there, and a duplicate of one (pidfd_getfd(2), Linux 5.6) is disconnected, at which the kernel
sends the peer a reset.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imagepipe.local.host.namespace_group import group_of
from imagepipe.local.host.sockets import ESTABLISHED, LISTENING, sockets

PIDFD_GETFD = 438  # the same on all architectures
NO_ADDRESS = bytes(16)
"""A sockaddr of AF_UNSPEC: a connect to it disconnects the socket (connect(2))."""


def reset_connections(machine_id: str, address: str) -> int:
    """Reset every TCP connection to the machine's address, and return their number. The machine keeps running."""
    libc = ctypes.CDLL(None, use_errno=True)
    count = 0
    for pid, fd in _holders(machine_id, address, ESTABLISHED):
        with suppress(OSError):
            process = os.pidfd_open(pid)
            try:
                duplicate = libc.syscall(PIDFD_GETFD, process, fd, 0)
            finally:
                os.close(process)
            if duplicate >= 0:
                count += libc.connect(duplicate, NO_ADDRESS, len(NO_ADDRESS)) == 0
                os.close(duplicate)
    return count


def hold_ports(machine_id: str, address: str) -> list[int]:
    """Stop the processes that listen for the machine, and return their ids: connections are accepted, not answered."""
    stopped = sorted({pid for pid, _ in _holders(machine_id, address, LISTENING)})
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    return stopped


def release_ports(machine_id: str, stopped: list[int]) -> None:
    """Continue those of the processes that are still the machine's."""
    for pid in set(stopped) & set(group_of(machine_id).processes()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _holders(machine_id: str, address: str, state: str) -> Iterator[tuple[int, int]]:
    """List process and descriptor of the machine's sockets in this state."""
    wanted = {f"socket:[{each.inode}]" for each in sockets("tcp") if (each.address, each.state) == (address, state)}
    for pid in group_of(machine_id).processes() if wanted else ():
        with suppress(OSError):  # it ended meanwhile
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(link.readlink()) in wanted:
                        yield pid, int(link.name)
