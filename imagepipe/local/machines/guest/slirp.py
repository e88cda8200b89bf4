"""A machine's network: slirp4netns beside its namespace, and the ports that it forwards.

slirp4netns gives the machine 10.0.2.100 and a resolver at 10.0.2.3. The machine cannot reach this computer's loopback
through it: `endpoint` leads to the cloud's endpoint. slirp4netns ends when the other end of its exit pipe is
closed. The supervisor holds that end, so slirp4netns ends when the supervisor ends or is killed.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagepipe.local.host import rootless, unix_socket
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.port_relay import is_taken
from imagepipe.local.host.processes import kill_group, start_time
from imagepipe.local.host.sockets import CLOSED, LISTENING, sockets
from imagepipe.local.machines.driver import Ingress
from imagepipe.local.machines.records import Process
from imagepipe.values import HostPorts

GUEST = "10.0.2.100"
CALLER = ipaddress.ip_address("127.0.0.1")
SOCKET = "slirp.sock"
NARROW = 16  # ports; a wider rule forwards only those on which the machine listens
READY_SECONDS = 10
LISTENING_STATES = {"tcp": LISTENING, "udp": CLOSED}


@dataclass(frozen=True, slots=True, order=True)
class Port:
    """A port of a machine that is open to callers on this computer."""

    protocol: str
    number: int


def wanted(ingress: Iterable[Ingress], listening: frozenset[Port]) -> frozenset[Port]:
    """List the ports that these rules open to a caller on this computer.

    A narrow rule opens all of its ports, a wide one those on which the machine listens.
    """
    ports: set[Port] = set()
    for rule in ingress:
        if not _admits_callers(rule.cidr):
            continue
        for protocol in ("tcp", "udp"):
            if rule.protocol not in (protocol, "-1"):
                continue
            low, high = (0, 65535) if rule.protocol == "-1" else (rule.from_port, rule.to_port)
            if high - low < NARROW:
                ports.update(Port(protocol, number) for number in range(max(low, 1), high + 1))
            else:
                ports.update(p for p in listening if p.protocol == protocol and low <= p.number <= high)
    return frozenset(ports)


def has_wide(ingress: Iterable[Ingress]) -> bool:
    """Tell if the open ports depend on the ports on which the machine listens."""
    return any(
        _admits_callers(rule.cidr)
        and (rule.protocol == "-1" or (rule.protocol in LISTENING_STATES and rule.to_port - rule.from_port >= NARROW))
        for rule in ingress
    )


def listening(pid: int) -> frozenset[Port]:
    """List the ports on which processes listen in this process's network namespace, except on loopback."""
    ports: set[Port] = set()
    for protocol, state in LISTENING_STATES.items():
        for suffix in ("", "6"):
            with suppress(OSError):
                ports.update(
                    Port(protocol, each.port)
                    for each in sockets(f"{protocol}{suffix}", pid)
                    if each.state == state and not ipaddress.ip_address(each.address).is_loopback
                )
    return frozenset(ports)


def open_network(*, namespace_pid: int, folder: Path, join: Sequence[str], exit_fd: int) -> subprocess.Popen[bytes]:
    """Start slirp4netns for the network namespace of that process; returns once it carries packets.

    `join` is the command that puts what follows it into the machine's group.
    """
    # A name relative to its folder: the path of a Unix socket is at most 107 bytes long.
    (folder / SOCKET).unlink(missing_ok=True)
    ready, ready_end = os.pipe()
    command = [
        *join, "slirp4netns", "--netns-type=path", "--configure", "--mtu=65520", "--disable-host-loopback",
        f"--ready-fd={ready_end}", f"--exit-fd={exit_fd}", "--api-socket", SOCKET,
        f"/proc/{namespace_pid}/ns/net", "tap0",
    ]  # fmt: skip
    with os.fdopen(ready, "rb", buffering=0) as answer:
        with os.fdopen(ready_end, "wb"), (folder / "slirp.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(ready_end, exit_fd), start_new_session=True,
            )  # fmt: skip
        answered, _, _ = select.select([answer], [], [], READY_SECONDS)
        if not answered or answer.read(1) != b"1":
            process.kill()
            process.wait()
            said = (folder / "slirp.log").read_text(errors="replace").strip()[-500:]
            raise MachineError(f"slirp4netns gave no network within {READY_SECONDS} s: {said or 'it said nothing'}")
        return process


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Opens a machine's ports on this computer; what it starts ends with the machine's supervisor."""

    folder: Path
    addresses: Sequence[str]
    supervisor: Process
    join: Sequence[str]
    """The command that puts what follows it into the machine's group."""
    host_ports: HostPorts
    optional: frozenset[Port] = frozenset()
    """Ports that stay closed if something on this computer has them."""

    def set_forwards(self, ports: frozenset[Port]) -> None:
        """Forward these ports of each address to the machine, and no others. Raises MachineError.

        If one port cannot be opened, the others still are.
        """
        entries = _ask(self.folder, "list_hostfwd")["entries"]
        forwarded = {(each["host_addr"], Port(each["proto"], each["guest_port"])): each["id"] for each in entries}
        wanted = {(address, port) for address in self.addresses for port in ports}
        for address, port in sorted(forwarded.keys() - wanted):
            self._end_relay(address, port)
            _ask(self.folder, "remove_hostfwd", id=forwarded[address, port])
        problems = []
        for address, port in sorted(wanted - forwarded.keys()):
            try:
                self._open(address, port)
            except MachineError as problem:
                if port not in self.optional:
                    problems.append(str(problem))
        if problems:
            raise MachineError("; ".join(problems))

    def _open(self, address: str, port: Port) -> None:
        try:
            self._forward(address, port, self.host_ports.of(port.number))
            return
        except MachineError:
            # A relay needs root, too.
            if rootless.is_plain_user() or port.protocol != "tcp" or is_taken(address, port.number):
                raise
        # A service listens on this port of every address.
        with socket.socket() as probe:
            probe.bind((address, 0))
            via = int(probe.getsockname()[1])
        entry = self._forward(address, port, via)
        try:
            self._start_relay(address, port, via)
        except MachineError:
            _ask(self.folder, "remove_hostfwd", id=entry)
            raise

    def _forward(self, address: str, port: Port, host_port: int) -> int:
        answer = _ask(
            self.folder, "add_hostfwd", proto=port.protocol, host_addr=address, host_port=host_port,
            guest_addr=GUEST, guest_port=port.number,
        )  # fmt: skip
        return int(answer["id"])

    def _start_relay(self, address: str, port: Port, via: int) -> None:
        words = [address, str(port.number), str(via), str(self.supervisor.pid), self.supervisor.started]
        done = subprocess.run(
            [*self.join, sys.executable, "-m", "imagepipe.local.host.port_relay", *words],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, start_new_session=True,
        )  # fmt: skip
        if done.returncode != 0:
            said = done.stdout.removeprefix("error ").strip() or done.stderr.strip()[-300:]
            raise MachineError(f"listening on port {port.number} of {address}: {said}")
        pid = int(done.stdout)
        self._relay_file(address, port).write_text(f"{pid} {start_time(pid)}")

    def _end_relay(self, address: str, port: Port) -> None:
        try:
            pid, started = self._relay_file(address, port).read_text().split()
        except FileNotFoundError:
            return
        kill_group(int(pid), started)
        self._relay_file(address, port).unlink()

    def _relay_file(self, address: str, port: Port) -> Path:
        return self.folder / f"relay-{address}-{port.number}"


def _ask(folder: Path, what: str, **arguments: Any) -> dict[str, Any]:
    """Send one request to slirp4netns's API socket (slirp4netns(1), API SOCKET)."""
    try:
        with unix_socket.connect(folder, SOCKET, seconds=READY_SECONDS) as connection:
            connection.sendall(json.dumps({"execute": what, "arguments": arguments}).encode())
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError as problem:
        raise MachineError(f"slirp4netns does not answer {what}: {problem}") from problem
    said: dict[str, Any] = json.loads(answer)
    if "error" in said:
        raise MachineError(_explain(what, arguments, said["error"].get("desc", "")))
    result: dict[str, Any] = said.get("return", said)  # list_hostfwd of 1.2.0 answers without it
    return result


def _explain(what: str, arguments: dict[str, Any], said: str) -> str:
    if what != "add_hostfwd":
        return f"slirp4netns refused {what} {arguments}: {said}"
    address, port = arguments["host_addr"], arguments["host_port"]
    return (
        f"forwarding {arguments['proto']} port {port} of {address}: {said}; something on this computer has the port"
        f" (see `ss -lnptu 'sport = :{port}'`)"
    )


def _admits_callers(cidr: str) -> bool:
    return CALLER in ipaddress.ip_network(cidr, strict=False)
