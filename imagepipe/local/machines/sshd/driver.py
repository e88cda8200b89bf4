"""Machines that are an sshd and nothing else: no init, no cloud-init, up in a tenth of a second, by the hundred.

For tests and benchmarks. The root disk is mounted as the container driver does it, so all writes are captured; the
supervisor (see there) stands in for everything that boots. Ports are sockets that are bound here, to the instance's own
address, and passed to the supervisor, which keeps them when this process ends.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from imagepipe.local.host import loop, port_relay, unix_socket
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines import fstab, launch, records
from imagepipe.local.machines.driver import Machine
from imagepipe.local.machines.guest import slirp
from imagepipe.local.machines.mounting import MountingDriver
from imagepipe.local.machines.records import Process, Record
from imagepipe.local.machines.sshd import first_boot, supervisor

FOLDER = "sshd"
"""Below the store's folder of machines: machines of other drivers there are not taken over."""
READY_SECONDS = 20
BOOT_SECONDS = 60  # useradd and ssh-keygen on a loaded computer
ANSWER_SECONDS = 10
BACKLOG = 128
SSH = slirp.Port("tcp", supervisor.SSH_PORT)


class SshdDriver(MountingDriver):
    """Machines without an init."""

    name = "sshd"
    stop_seconds = 30.0
    scratch = (*MountingDriver.scratch, supervisor.SOCKET)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / FOLDER)

    def reboot(self, machine_id: str) -> None:
        self._get(machine_id)
        self._ask(machine_id, {"do": "reboot"})

    def _check(self, machine: Machine) -> None:
        """Raise MachineError if a disk is in use, for example by a machine that another driver left running.

        The clean-up of a failed start would end that machine, because it ends all processes of the machine's name.
        """
        if devices := loop.devices_of(frozenset(disk.path for disk in machine.disks)):
            raise MachineError(
                f"starting {machine.id}: its disks are in use ({', '.join(devices)}): is it another driver's?"
            )

    def _launch(self, folder: Path, record: Record, children: list[subprocess.Popen[bytes]]) -> Record:
        machine = record.machine
        launch.refuse_foreign(machine.disks)
        MachineGroup(machine.id).make()
        loops: list[loop.Loop] = []
        try:
            loops += [loop.attach(disk.path) for disk in machine.disks]
            devices = tuple(each.device for each in loops)
            plan = asdict(first_boot.plan(machine.seed)) | {
                "folder": str(folder),
                "root": devices[0],
                "devices": _nodes(machine, devices),
                "held": [each.fd for each in loops],
            }
            child = _start_supervisor(machine.id, folder, held=plan["held"])
            children.append(child)
            _tell(child, json.dumps(plan))
            _expect(child, supervisor.READY, READY_SECONDS, f"mounting {machine.disks[0].path} for {machine.id}")
        finally:
            for each in loops:
                each.close()
        record = replace(record, supervisor=Process.of(child.pid))
        records.write(folder, record)
        _tell(child, "boot")
        return record

    def _wait_until_up(self, record: Record, shell: subprocess.Popen[bytes]) -> None:
        _expect(shell, supervisor.UP, BOOT_SECONDS, "setting it up")
        self._open_ports(record)

    def _adopt(self, record: Record) -> None:
        super()._adopt(record)
        # The earlier process may have ended before it opened the ports. A machine that is ending does not answer.
        with suppress(MachineError):
            self._open_ports(record)

    def _ask_to_power_off(self, record: Record) -> bool:
        try:
            self._ask(record.machine.id, {"do": "off"})
        except MachineError:  # it may be ending by itself
            return False
        return True

    def _listening(self, record: Record) -> frozenset[slirp.Port]:
        return super()._listening(record) | {SSH}

    def _forward(self, forwarder: slirp.Forwarder, ports: frozenset[slirp.Port]) -> None:
        """Open these TCP ports, as many as possible, and no others. Raises MachineError for those that failed."""
        machine_id = forwarder.folder.name
        numbers = {port.number for port in ports if port.protocol == "tcp"}
        wanted = {(address, number) for address in forwarder.addresses for number in numbers}
        is_open = {(str(address), int(number)) for address, number in self._ask(machine_id, {"do": "ports"})}
        for address, number in sorted(is_open - wanted):
            self._ask(machine_id, {"do": "close", "address": address, "port": number})
        problems = []
        for address, number in sorted(wanted - is_open):
            try:
                listening, in_repair = _listener(address, number)
                with listening:
                    request = {"do": "open", "address": address, "port": number, "in_repair": in_repair}
                    self._ask(machine_id, request, listening.fileno())
            except OSError as problem:
                problems.append(f"listening on port {number} of {address}: {problem.strerror or problem}")
        if problems:
            raise MachineError("; ".join(problems))

    def _names(self, record: Record) -> dict[str, str]:
        return dict(self._ask(record.machine.id, {"do": "names"}))

    def _set_names(self, record: Record, names: Mapping[str, str]) -> None:
        self._ask(record.machine.id, {"do": "set-names", "names": dict(names)})

    def _hold(self, record: Record, held: loop.Loop) -> None:
        self._ask(record.machine.id, {"do": "hold"}, held.fd)

    def _release(self, record: Record, device: str) -> None:
        self._ask(record.machine.id, {"do": "release", "device": device})

    def _ask(self, machine_id: str, request: dict[str, Any], handing: int | None = None) -> Any:
        """Send one request to the supervisor, with a file descriptor to hand over. Raises MachineError."""
        try:
            with unix_socket.connect(self._folder / machine_id, supervisor.SOCKET, seconds=ANSWER_SECONDS) as line:
                socket.send_fds(line, [json.dumps(request).encode()], [] if handing is None else [handing])
                return json.loads(line.recv(65536))
        except (OSError, ValueError) as problem:
            raise MachineError(f"{machine_id} does not answer {request['do']}: {problem}") from problem


def _nodes(machine: Machine, devices: Sequence[str]) -> dict[str, str]:
    """Map names in /dev to devices: an instance's names, and the kernel's own, by which blkid finds them."""
    nodes = {device: device for device in devices[1:]}
    for at, (disk, device) in enumerate(zip(machine.disks, devices, strict=True)):
        nodes |= dict.fromkeys(fstab.names(disk.device, at), device)
    return nodes


def _start_supervisor(machine_id: str, folder: Path, *, held: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [
        *launch.join_command(machine_id),
        "unshare", "--mount", "--uts", "--ipc", "--net", "--propagation", "slave",
        sys.executable, "-I", "-S", supervisor.__file__, f"imagepipe-{machine_id}",
    ]  # fmt: skip
    with (folder / "console.log").open("ab") as console:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console, pass_fds=tuple(held),
            start_new_session=True,
        )  # fmt: skip


def _tell(child: subprocess.Popen[bytes], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{line}\n".encode())
    child.stdin.flush()


def _expect(child: subprocess.Popen[bytes], word: str, seconds: float, doing: str) -> None:
    """Read a line from the supervisor. Raises MachineError if it is not this word."""
    assert child.stdout is not None
    answered, _, _ = select.select([child.stdout], [], [], seconds)
    answer = os.read(child.stdout.fileno(), 4096).decode(errors="replace").strip() if answered else ""
    if answer != word:
        raise MachineError(f"{doing}: {answer.removeprefix('error ') or 'no answer'}")


def _listener(address: str, number: int) -> tuple[socket.socket, bool]:
    """Listen on the port. The flag is true if that takes repair mode, because a service listens on every address."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, number))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        return port_relay.listener(address, number), True
    return listening, False
