"""Start a machine's supervisor in its group, and tell it to boot."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from imagepipe.local.host import foreign, rootless
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.namespace_group import NamespaceGroup
from imagepipe.local.machines.driver import Disk

READY_SECONDS = 20

# Arguments: control group files, then --, then a command.
JOIN = 'while [ "$1" != -- ]; do echo $$ >"$1" || exit 125; shift; done; shift; exec "$@"'


# A process namespace with all its members ends with its first process, and that ends with unshare.
OWN_NAMESPACES = ("unshare", "--map-root-user", "--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child")
"""Command prefix that begins a plain user's group; the supervisor makes the network by itself (`endpoint`)."""


def join_command(machine_id: str) -> list[str]:
    """Return the prefix of a command that runs it in the machine's group.

    Raises MachineError if the group has ended.
    """
    if rootless.is_plain_user():
        leader = NamespaceGroup(machine_id).leader()
        if leader is None:
            raise MachineError(f"the supervisor of {machine_id} has ended")
        namespaces = Path(f"/proc/{leader}/ns")
        return ["nsenter", f"--user={namespaces}/user", f"--pid={namespaces}/pid", "--preserve-credentials", "--"]
    return ["sh", "-c", JOIN, "imagepipe-machine", *map(str, MachineGroup(machine_id).procs_files()), "--"]


def start(command: Sequence[str], *, folder: Path, held: Sequence[int], doing: str) -> subprocess.Popen[bytes]:
    """Start a supervisor, and return once it is ready and waits to be told to boot.

    Raises MachineError, whose text begins with `doing`.
    """
    with (folder / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, pass_fds=tuple(held),
            start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as answer:
        answered, _, _ = select.select([answer], [], [], READY_SECONDS)
        if answered and os.read(answer.fileno(), 16) == b"ready\n":
            return process
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
    said = (folder / "supervisor.log").read_text(errors="replace").strip()[-500:]
    raise MachineError(f"{doing}: {said or 'no answer'}")


def boot(process: subprocess.Popen[bytes]) -> None:
    """Tell the supervisor to boot the machine."""
    assert process.stdin is not None
    with process.stdin as word:
        word.write(b"boot\n")


def refuse_foreign(disks: Iterable[Disk]) -> None:
    """Raise MachineError if this computer's kernel would have to mount an imported disk."""
    for disk in disks:
        if foreign.is_foreign(disk.path):
            raise MachineError(
                f"{disk.device} was imported, or was attached beside a disk that was: this computer's kernel does not"
                f" mount it. Boot it in QEMU: start the local cloud with IMAGEPIPE_LOCAL_DRIVER=auto or qemu"
            )
