"""Machines that are an sshd and nothing else: no init, no cloud-init, there in a tenth of a second, by the hundred.

For tests and benchmarks. The root disk is mounted as the container driver does it, so what is written is captured; the
keeper (see there) stands in for everything that boots. Ports are sockets that are bound here, to the instance's own
address, and handed to the keeper: it keeps them when this process ends.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from imagepipe.deletion import delete_tree
from imagepipe.local.host import freeze, loop, port_relay
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.processes import is_alive
from imagepipe.local.machines import fstab, launch, record
from imagepipe.local.machines.driver import Ingress, Machine
from imagepipe.local.machines.guest import slirp
from imagepipe.local.machines.record import Process, Record
from imagepipe.local.machines.sshd import first_boot, supervisor
from imagepipe.local.machines.watcher import Watcher

FOLDER = "sshd"
"""Below the store's folder of machines: what another driver left there is not ours to take over."""
READY_SECONDS = 20
BOOT_SECONDS = 60  # useradd and ssh-keygen on a loaded computer
STOP_SECONDS = 30
GONE_SECONDS = 15
ANSWER_SECONDS = 10
BACKLOG = 128
CONSOLE = "console.log"
CONSOLE_BYTES = 64 << 10
CONSOLE_LIMIT = 16 << 20
SSH = slirp.Port("tcp", supervisor.SSH_PORT)


@dataclass(slots=True)
class _Running:
    """A machine that runs, as this process knows it."""

    record: Record
    child: subprocess.Popen[bytes] | None = None
    """Its keeper, where that is our child and must be waited for."""
    is_stopping: bool = False
    ports: threading.Lock = field(default_factory=threading.Lock)
    """Held while its ports are opened and closed."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Set when everything was cleaned up."""


class SshdDriver:
    """Machines under one folder. Adopts those that run there already, and deletes what is half made."""

    name = "sshd"

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._lock = threading.Lock()
        self._machines: dict[str, _Running] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._watcher = Watcher(on_end=self._on_keeper_end, on_tick=self._follow_ports)
        for known in sorted(path for path in self._folder.iterdir() if path.is_dir()):
            self._adopt_or_reap(known)

    def problems(self) -> Sequence[str]:
        from imagepipe.local.machines.requirements import sshd_problems

        return sshd_problems()

    def start(self, machine: Machine, ingress: Sequence[Ingress]) -> None:
        with self._lock:
            if machine.id in self._machines:
                raise MachineError(f"starting {machine.id}: it runs already")
        _check_unused(machine)  # first of all: to delete is to end all that has the machine's name
        folder = self._folder / machine.id
        (folder / "root").mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = Record(machine=machine, ingress=tuple(ingress))
        record.write(folder, kept)
        children: list[subprocess.Popen[bytes]] = []
        try:
            kept = self._launch(folder, kept, children)
            self._let_in(kept)
        except (MachineError, OSError) as problem:
            self._clean_up(kept, children)
            raise MachineError(f"starting {machine.id}: {problem}") from problem
        except BaseException:
            self._clean_up(kept, children)
            raise
        self._take_on(_Running(kept, children[0]))

    def stop(self, machine_id: str, *, force: bool = False) -> None:
        with self._lock:
            running = self._machines.get(machine_id)
            if running is None:
                return
            running.is_stopping = True
        freeze.thaw([self._root_seen_from_host(running.record)] if self._may_be_frozen(machine_id) else [])
        if not force:
            with suppress(MachineError):  # it may be ending by itself
                self._ask(machine_id, {"do": "off"})
                if running.ended.wait(STOP_SECONDS):
                    return
        MachineGroup(machine_id).kill()
        if not running.ended.wait(GONE_SECONDS * 2):
            left = sorted(MachineGroup(machine_id).processes())
            raise MachineError(f"stopping {machine_id}: processes {left} do not end")

    def reboot(self, machine_id: str) -> None:
        self._get(machine_id)
        self._ask(machine_id, {"do": "reboot"})

    def set_ingress(self, machine_id: str, ingress: Sequence[Ingress]) -> None:
        running = self._get(machine_id)
        with running.ports:
            running.record = running.record.with_ingress(ingress)
            record.write(self._folder / machine_id, running.record)
            self._let_in(running.record)

    def quiesced(self, machine_id: str) -> AbstractContextManager[None]:
        return self._quiesced(machine_id)

    @contextmanager
    def _quiesced(self, machine_id: str) -> Iterator[None]:
        kept = self._get(machine_id).record
        places = [self._root_seen_from_host(kept)]
        init = MachineGroup(machine_id).init()
        if init is not None and len(kept.devices) > 1:
            places += freeze.mounted(init, kept.devices[1:])
        mark = self._folder / machine_id / "frozen"
        mark.touch()
        with freeze.frozen(places):
            yield
        mark.unlink(missing_ok=True)

    def _may_be_frozen(self, machine_id: str) -> bool:
        """A frozen process cannot even be killed; that nobody froze it is known without starting fsfreeze."""
        return (self._folder / machine_id / "frozen").exists()

    def console(self, machine_id: str) -> bytes:
        try:
            with (self._folder / machine_id / CONSOLE).open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - CONSOLE_BYTES))
                return file.read(CONSOLE_BYTES)
        except FileNotFoundError:
            return b""

    def running(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._machines)

    def on_exit(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def forget(self, machine_id: str) -> None:
        if machine_id in self.running():
            raise MachineError(f"forgetting {machine_id}: it still runs")
        with suppress(OSError):
            delete_tree(self._folder / machine_id)

    def close(self) -> None:
        """Stop watching; the machines live on, for the next process of this store."""
        self._watcher.close()

    # Starting, step by step.

    def _launch(self, folder: Path, kept: Record, children: list[subprocess.Popen[bytes]]) -> Record:
        machine = kept.machine
        launch.refuse_foreign(machine)
        group = MachineGroup(machine.id)
        group.make()
        loops: list[loop.Loop] = []
        try:
            loops += [loop.attach(disk.path) for disk in machine.disks]
            devices = tuple(each.device for each in loops)
            plan = first_boot.plan(machine.seed).values() | {
                "folder": str(folder),
                "root": devices[0],
                "devices": _nodes(machine, devices),
                "held": [each.fd for each in loops],
            }
            child = _start_keeper(machine.id, folder, held=plan["held"])
            children.append(child)
            _tell(child, json.dumps(plan))
            _expect(child, supervisor.READY, READY_SECONDS, f"mounting {machine.disks[0].path} for {machine.id}")
        finally:
            for each in loops:
                each.close()
        kept = replace(kept, devices=devices, supervisor=Process.of(child.pid))
        record.write(folder, kept)
        _tell(child, "boot")
        _expect(child, supervisor.UP, BOOT_SECONDS, "setting it up")
        return kept

    def _let_in(self, kept: Record) -> None:
        """Open what the rules open, and nothing else. UDP is not carried. Raises MachineError.

        What can be opened is, though another port cannot.
        """
        assert kept.supervisor is not None
        heard = {SSH, *slirp.listening(kept.supervisor.pid)} if slirp.has_wide(kept.ingress) else {SSH}
        wanted = {port.number for port in slirp.wanted(kept.ingress, frozenset(heard)) if port.protocol == "tcp"}
        is_open = set(self._ask(kept.machine.id, {"do": "ports"}))
        for number in sorted(is_open - wanted):
            self._ask(kept.machine.id, {"do": "close", "port": number})
        problems = []
        for number in sorted(wanted - is_open):
            try:
                self._open(kept.machine, number)
            except OSError as problem:
                problems.append(f"listening on port {number} of {kept.machine.address}: {problem.strerror or problem}")
        if problems:
            raise MachineError("; ".join(problems))

    def _open(self, machine: Machine, number: int) -> None:
        listening, in_repair = _listener(machine.address, number)
        with listening:
            self._ask(machine.id, {"do": "open", "port": number, "in_repair": in_repair}, listening)

    def _ask(self, machine_id: str, what: dict[str, Any], handing: socket.socket | None = None) -> Any:
        """One request to the keeper. Raises MachineError."""
        at = os.open(self._folder / machine_id, os.O_PATH | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(ANSWER_SECONDS)
                line.connect(f"/proc/self/fd/{at}/{supervisor.SOCKET}")
                socket.send_fds(line, [json.dumps(what).encode()], [handing.fileno()] if handing else [])
                return json.loads(line.recv(65536))
        except (OSError, ValueError) as problem:
            raise MachineError(f"{machine_id} does not answer {what['do']}: {problem}") from problem
        finally:
            os.close(at)

    # While they run.

    def _get(self, machine_id: str) -> _Running:
        with self._lock:
            running = self._machines.get(machine_id)
        if running is None:
            raise MachineError(f"{machine_id} does not run")
        return running

    def _take_on(self, running: _Running) -> None:
        assert running.record.supervisor is not None
        with self._lock:
            self._machines[running.record.machine.id] = running
        self._watcher.watch(running.record.machine.id, running.record.supervisor.pid)

    def _follow_ports(self) -> None:
        """Open what a widely opened machine has begun to listen on; cut a console that has grown too long."""
        with self._lock:
            all_running = list(self._machines.values())
        for running in all_running:
            with suppress(OSError):
                console = self._folder / running.record.machine.id / CONSOLE
                if console.stat().st_size > CONSOLE_LIMIT:
                    os.truncate(console, 0)
            if slirp.has_wide(running.record.ingress) and not running.is_stopping:
                with running.ports, suppress(MachineError, OSError):  # it may be ending now
                    self._let_in(running.record)

    def _root_seen_from_host(self, kept: Record) -> Path:
        assert kept.supervisor is not None
        return Path(f"/proc/{kept.supervisor.pid}/root{self._folder / kept.machine.id / 'root'}")

    # Ending.

    def _on_keeper_end(self, machine_id: str) -> None:
        with self._lock:
            running = self._machines[machine_id]
        try:
            self._clean_up(running.record, [running.child] if running.child else [])
        finally:
            with self._lock:
                del self._machines[machine_id]
                is_own_doing = not running.is_stopping
            running.ended.set()
        if is_own_doing:
            for callback in self._callbacks:
                callback(machine_id)

    def _clean_up(self, kept: Record, children: Sequence[subprocess.Popen[bytes]]) -> None:
        """End what is left of a machine and leave nothing of it but its disks and its console."""
        group, folder = MachineGroup(kept.machine.id), self._folder / kept.machine.id
        group.kill()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(GONE_SECONDS)
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
        group.wait_empty(GONE_SECONDS)
        loop.wait_free(frozenset(disk.path for disk in kept.machine.disks), GONE_SECONDS)
        group.remove()
        with suppress(OSError):
            (folder / "root").rmdir()
        for name in (supervisor.SOCKET, "frozen"):
            (folder / name).unlink(missing_ok=True)
        record.delete(folder)

    def _adopt_or_reap(self, folder: Path) -> None:
        kept = record.read(folder)
        if kept is None:
            return
        if kept.supervisor is None or not is_alive(kept.supervisor.pid, kept.supervisor.started):
            self._clean_up(kept, [])
            return
        if self._may_be_frozen(folder.name):
            freeze.thaw([self._root_seen_from_host(kept)])
            (folder / "frozen").unlink(missing_ok=True)
        with suppress(MachineError):  # a start that was killed between the boot and the ports; or it is ending
            self._let_in(kept)
        self._take_on(_Running(kept))


def _check_unused(machine: Machine) -> None:
    """Raise MachineError for a disk that somebody has: a machine that another driver left running, say."""
    if devices := loop.devices_of(frozenset(disk.path for disk in machine.disks)):
        raise MachineError(
            f"starting {machine.id}: its disks are in use ({', '.join(devices)}): is it another driver's?"
        )


def _nodes(machine: Machine, devices: Sequence[str]) -> dict[str, str]:
    """Name the nodes of /dev, each with its device: an instance's names, and the kernel's, by which blkid finds it."""
    nodes = {device: device for device in devices[1:]}
    for at, (disk, device) in enumerate(zip(machine.disks, devices, strict=True)):
        nodes |= dict.fromkeys(fstab.names(disk.device, at), device)
    return nodes


def _start_keeper(machine_id: str, folder: Path, *, held: Sequence[int]) -> subprocess.Popen[bytes]:
    command = [
        *launch.join_command(MachineGroup(machine_id).doors()),
        "unshare", "--mount", "--uts", "--ipc", "--net", "--propagation", "slave",
        sys.executable, "-I", "-S", supervisor.__file__, f"imagepipe-{machine_id}",
    ]  # fmt: skip
    with (folder / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=console, pass_fds=tuple(held),
            start_new_session=True,
        )  # fmt: skip


def _tell(child: subprocess.Popen[bytes], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(f"{line}\n".encode())
    child.stdin.flush()


def _expect(child: subprocess.Popen[bytes], word: str, seconds: float, doing: str) -> None:
    """Read a line of the keeper's. Raises MachineError where it is another one."""
    assert child.stdout is not None
    answered, _, _ = select.select([child.stdout], [], [], seconds)
    said = os.read(child.stdout.fileno(), 4096).decode(errors="replace").strip() if answered else ""
    if said != word:
        raise MachineError(f"{doing}: {said.removeprefix('error ') or 'no answer'}")


def _listener(address: str, number: int) -> tuple[socket.socket, bool]:
    """A socket that listens there, and whether it is in repair mode: where a service has the port of every address."""
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, number))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        return port_relay.listener(address, number), True
    return made, False
