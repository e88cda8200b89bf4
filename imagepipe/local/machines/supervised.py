"""The common part of drivers whose machines live under a supervisor of their own.

The processes of a machine are in one group (`namespace_group`): a supervisor, its children that run the machine, and
slirp4netns. Everything that a machine uses of the computer ends with them. So to delete a machine is to end them, wait
until the loop devices are free, and delete the empty groups.
"""

from __future__ import annotations

import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import field, replace
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.deletion import delete_tree
from imagepipe.local.host import loop, rootless
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.namespace_group import group_of
from imagepipe.local.host.processes import is_alive
from imagepipe.local.machines import launch, records
from imagepipe.local.machines.driver import ARM, Disk, Ingress, Machine, Metadata
from imagepipe.local.machines.guest import imds, slirp
from imagepipe.local.machines.records import Record
from imagepipe.local.machines.watcher import Watcher

GONE_SECONDS = 15  # killed processes leave within milliseconds, unless their disk is slow
CONSOLE_BYTES = 64 << 10
CONSOLE_LIMIT = 16 << 20  # a larger file is truncated to nothing


@dataclass(slots=True)
class Running:
    """A machine that runs, as this process knows it."""

    record: Record
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    """Processes of the machine that are our children and must be waited for."""
    is_stopping: bool = False
    ports: threading.Lock = field(default_factory=threading.Lock)
    """Lock that is held while its ports are opened and closed."""
    keeping: threading.Lock = field(default_factory=threading.Lock)
    """Lock that is held while its record is changed."""
    ended: threading.Event = field(default_factory=threading.Event)
    """Event that is set when the machine has been cleaned up."""


class SupervisedDriver(ABC):
    """Machines under one folder. Adopts those that run there already, and deletes incomplete ones."""

    name: str
    runs_arm = False
    """True if the driver runs machines for arm64."""
    stop_seconds = 60.0
    """Time after which a stopping machine is ended by force, as EC2 does."""
    scratch: tuple[str, ...] = (slirp.SOCKET, imds.FILE, "slirp.log", "supervisor.log")
    """Files in a machine's folder that are deleted when it is cleaned up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._machines: dict[str, Running] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._watcher = Watcher(on_end=self._on_supervisor_end, on_tick=self._follow_ports)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for known in sorted(path for path in folder.iterdir() if path.is_dir()):
            self._adopt_or_reap(known)

    # Implemented by each kind of machine.

    @abstractmethod
    def reboot(self, machine_id: str) -> None: ...

    def _check(self, machine: Machine) -> None:  # noqa: B027 - most have nothing to check
        """Raise MachineError for a machine that cannot be started. Called before anything is made for it."""

    @abstractmethod
    def _launch(self, folder: Path, record: Record, children: list[subprocess.Popen[bytes]]) -> Record:
        """Start the supervisor and the network, tell it to boot, and add the started processes to the children."""

    @abstractmethod
    def _wait_until_up(self, record: Record, shell: subprocess.Popen[bytes]) -> None:
        """Wait until the machine's init runs. Raises MachineError."""

    @abstractmethod
    def _ask_to_power_off(self, record: Record) -> bool:
        """Ask the machine to power off; return false if it cannot be asked."""

    @abstractmethod
    def _frozen(self, record: Record) -> AbstractContextManager[None]:
        """Freeze the machine's disks within the block."""

    @abstractmethod
    def _unfreeze(self, record: Record) -> None:
        """Undo a freeze that was interrupted: a frozen process cannot even be killed."""

    def _check_attached(self, record: Record, disk: Disk) -> None:  # noqa: B027 - as above
        """Raise MachineError for a disk that cannot be attached. Called before anything is changed."""

    @abstractmethod
    def _plug(self, record: Record, disk: Disk) -> None:
        """Give a running machine a disk that its record has already; may be repeated. Raises MachineError or OSError.

        The machine may be between two boots.
        """

    @abstractmethod
    def _unplug(self, record: Record, disk: Disk) -> None:
        """Take a disk from a running machine; may be repeated. Raises DiskBusy, MachineError or OSError."""

    @abstractmethod
    def _resize(self, record: Record, disk: Disk) -> None:
        """Show a running machine the size of a disk's file. Raises MachineError or OSError."""

    def _publish_metadata(self, record: Record) -> None:  # noqa: B027 - a machine without the service does nothing
        """Write the metadata of a running machine where its service reads it. Raises OSError."""

    def _listening(self, record: Record) -> frozenset[slirp.Port]:
        """List the ports that a wide rule opens."""
        assert record.supervisor is not None
        return slirp.listening(record.supervisor.pid)

    def _open_ports(self, record: Record) -> None:
        """Forward the ports that the machine's rules open, and no others. Raises MachineError."""
        assert record.supervisor is not None
        found = self._listening(record) if slirp.has_wide(record.ingress) else frozenset()
        ports = slirp.wanted(record.ingress, found)
        # A plain user has no relay beside a service of this computer, and a wide rule does not mean each single port.
        optional = ports - slirp.wanted(record.ingress, frozenset()) if rootless.is_plain_user() else frozenset()
        forwarder = slirp.Forwarder(
            folder=self._folder / record.machine.id,
            addresses=record.machine.addresses,
            supervisor=record.supervisor,
            join=launch.join_command(record.machine.id),
            host_ports=rootless.host_ports(),
            optional=optional,
        )
        self._forward(forwarder, ports)

    def _forward(self, forwarder: slirp.Forwarder, ports: frozenset[slirp.Port]) -> None:
        forwarder.set_forwards(ports)

    def _adopt(self, record: Record) -> None:
        """Take over a machine that an earlier process started."""
        self._unfreeze(record)

    def start(self, machine: Machine, ingress: Sequence[Ingress]) -> None:
        with self._lock:
            if machine.id in self._machines:
                raise MachineError(f"starting {machine.id}: it runs already")
        if machine.architecture == ARM and not self.runs_arm:
            raise MachineError(
                f"starting {machine.id}: its image is for arm64, which the driver {self.name} cannot run; QEMU can:"
                " IMAGEPIPE_LOCAL_DRIVER=auto"
            )
        self._check(machine)
        folder = self._folder / machine.id
        (folder / "root").mkdir(mode=0o700, parents=True, exist_ok=True)
        record = Record(machine=machine, ingress=tuple(ingress))
        records.write(folder, record)
        children: list[subprocess.Popen[bytes]] = []
        try:
            record = self._launch(folder, record, children)
            self._wait_until_up(record, children[0])
        except (MachineError, OSError) as problem:
            self._clean_up(record, children)
            raise MachineError(f"starting {machine.id}: {problem}") from problem
        except BaseException:
            self._clean_up(record, children)
            raise
        self._manage(Running(record, children))

    def stop(self, machine_id: str, *, force: bool = False) -> None:
        with self._lock:
            running = self._machines.get(machine_id)
            if running is None:
                return
            running.is_stopping = True
        if not force and self._ask_to_power_off(running.record) and running.ended.wait(self.stop_seconds):
            return
        self._unfreeze(running.record)
        group = group_of(machine_id)
        group.kill()
        if not running.ended.wait(GONE_SECONDS * 2):
            raise MachineError(f"stopping {machine_id}: processes {sorted(group.processes())} do not end")

    def set_ingress(self, machine_id: str, ingress: Sequence[Ingress]) -> None:
        running = self._get(machine_id)
        with running.ports:
            self._keep(running, lambda record: replace(record, ingress=tuple(ingress)))
            self._open_ports(running.record)

    def set_addresses(self, machine_id: str, further: Sequence[str]) -> None:
        running = self._get(machine_id)
        with running.ports:
            self._keep(
                running,
                lambda record: replace(record, machine=replace(record.machine, further_addresses=tuple(further))),
            )
            self._open_ports(running.record)

    def attach(self, machine_id: str, disk: Disk) -> None:
        running = self._get(machine_id)
        self._check_attached(running.record, disk)
        # The record comes first: whoever cleans up after the machine then waits until this disk is free, too.
        self._keep(running, lambda record: _with_disks(record, (*_without(record, disk.device), disk)))
        try:
            self._plug(running.record, disk)
        except (MachineError, OSError) as problem:
            with suppress(MachineError):
                self.detach(machine_id, disk.device)
            raise MachineError(f"attaching {disk.device} to {machine_id}: {problem}") from problem

    def detach(self, machine_id: str, device: str) -> None:
        running = self._get(machine_id)
        root, *others = running.record.machine.disks
        if device == root.device:
            raise MachineError(f"detaching {device} from {machine_id}: the machine runs from it")
        for disk in others:
            if disk.device == device:
                try:
                    self._unplug(running.record, disk)
                except OSError as problem:
                    raise MachineError(f"detaching {device} from {machine_id}: {problem}") from problem
                self._keep(running, lambda record: _with_disks(record, _without(record, device)))

    def resize(self, machine_id: str, device: str) -> None:
        running = self._get(machine_id)
        for disk in running.record.machine.disks:
            if disk.device == device:
                try:
                    self._resize(running.record, disk)
                except OSError as problem:
                    raise MachineError(f"resizing {device} of {machine_id}: {problem}") from problem

    def set_metadata(self, machine_id: str, metadata: Metadata) -> None:
        running = self._get(machine_id)
        self._keep(running, lambda record: replace(record, machine=replace(record.machine, metadata=metadata)))
        try:
            self._publish_metadata(running.record)
        except OSError as problem:
            raise MachineError(f"changing the metadata of {machine_id}: {problem}") from problem

    def quiesced(self, machine_id: str) -> AbstractContextManager[None]:
        return self._frozen(self._get(machine_id).record)

    def console(self, machine_id: str) -> bytes:
        try:
            with (self._folder / machine_id / "console.log").open("rb") as file:
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

    # Running machines.

    def _get(self, machine_id: str) -> Running:
        with self._lock:
            running = self._machines.get(machine_id)
        if running is None:
            raise MachineError(f"{machine_id} does not run")
        return running

    def _keep(self, running: Running, change: Callable[[Record], Record]) -> None:
        """Change the record of a running machine."""
        with running.keeping:
            running.record = change(running.record)
            records.write(self._folder / running.record.machine.id, running.record)

    def _manage(self, running: Running) -> None:
        assert running.record.supervisor is not None
        with self._lock:
            self._machines[running.record.machine.id] = running
        self._watcher.watch(running.record.machine.id, running.record.supervisor.pid)

    def _follow_ports(self) -> None:
        """Open new listening ports of machines that have a wide rule; truncate consoles that have grown too long."""
        with self._lock:
            all_running = list(self._machines.values())
        for running in all_running:
            with suppress(OSError):
                console = self._folder / running.record.machine.id / "console.log"
                if console.stat().st_size > CONSOLE_LIMIT:
                    os.truncate(console, 0)
            if slirp.has_wide(running.record.ingress) and not running.is_stopping:
                with running.ports, suppress(MachineError, OSError):  # it may be ending now
                    self._open_ports(running.record)

    # Machines that end.

    def _on_supervisor_end(self, machine_id: str) -> None:
        with self._lock:
            running = self._machines[machine_id]
        try:
            self._clean_up(running.record, running.children)
        finally:
            with self._lock:
                del self._machines[machine_id]
                is_own_doing = not running.is_stopping
            running.ended.set()
        if is_own_doing:
            for callback in self._callbacks:
                callback(machine_id)

    def _clean_up(self, record: Record, children: Sequence[subprocess.Popen[bytes]]) -> None:
        """End all processes of a machine, and delete everything of it except its disks and its console."""
        machine = record.machine
        group, folder = group_of(machine.id), self._folder / machine.id
        group.kill()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(GONE_SECONDS)
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
        group.wait_empty(GONE_SECONDS)
        loop.wait_free(frozenset(disk.path for disk in machine.disks), GONE_SECONDS)
        group.remove()
        with suppress(OSError):
            delete_tree(folder / "seed")
        with suppress(OSError):
            (folder / "root").rmdir()
        for name in self.scratch:
            (folder / name).unlink(missing_ok=True)
        for relay in folder.glob("relay-*"):
            relay.unlink()
        records.delete(folder)

    def _adopt_or_reap(self, folder: Path) -> None:
        record = records.read(folder)
        if record is None:
            return
        supervisor = record.supervisor
        if supervisor is None or not is_alive(supervisor.pid, supervisor.started):
            self._clean_up(record, [])
            return
        self._adopt(record)
        self._manage(Running(record))


def _without(record: Record, device: str) -> tuple[Disk, ...]:
    return tuple(disk for disk in record.machine.disks if disk.device != device)


def _with_disks(record: Record, disks: tuple[Disk, ...]) -> Record:
    return replace(record, machine=replace(record.machine, disks=disks))
