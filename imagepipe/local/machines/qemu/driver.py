"""Machines as QEMU guests on raw disks: their own kernel, and boot loader where they have one.

KVM is used if it really works. Otherwise the machine is emulated in software, which is slow: half a minute to a login.
The supervisor is `supervisor`; the network namespace, slirp4netns and the ports are those of a container. A plain
user's machine has all this inside a user namespace, in which the user is root.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from imagepipe.local.host import foreign, rootless
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.namespace_group import NamespaceGroup, group_of
from imagepipe.local.host.waiting import tries
from imagepipe.local.machines import launch, records
from imagepipe.local.machines.driver import Disk, Machine
from imagepipe.local.machines.guest import slirp
from imagepipe.local.machines.guest.slirp import Port
from imagepipe.local.machines.qemu import boards, kvm, qmp, slots, supervisor
from imagepipe.local.machines.records import Process, Record
from imagepipe.local.machines.supervised import SupervisedDriver

log = logging.getLogger(__name__)

UP_SECONDS = 30.0
PUSH_SECONDS = 5.0  # a guest that still boots ignores its power button
RESET_SECONDS = 120.0  # a guest that does not reboot cleanly is reset, as on EC2 after some minutes
WELL_KNOWN = (22, 25, 53, 80, 443, 3000, 3306, 5000, 5432, 6379, 8000, 8080, 8443, 9000, 9090, 9100, 9200)
"""Ports that a wide rule opens, because only the guest's kernel knows on which ports the guest listens."""


class QemuDriver(SupervisedDriver):
    """Guests that boot by themselves."""

    name = "qemu"
    runs_arm = True
    stop_seconds = 120.0
    scratch = (
        *SupervisedDriver.scratch, supervisor.FILE, supervisor.FORWARDS, supervisor.REBOOT, supervisor.RESOLV,
        supervisor.KVM_NODE, boards.UEFI_VARIABLES, qmp.SOCKET,
        "kernel", "initrd",
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        super().__init__(qemu_folder(folder))

    def reboot(self, machine_id: str) -> None:
        record = self._get(machine_id).record
        (self._folder / machine_id / supervisor.REBOOT).touch()
        self._push_power_button(record, until=RESET_SECONDS, at_last="system_reset")

    def _launch(self, folder: Path, record: Record, children: list[subprocess.Popen[bytes]]) -> Record:
        machine = record.machine
        _mark_foreign(machine)
        is_other = machine.architecture != boards.OWN and machine.architecture != "i386"
        why_not = f"it is for {machine.architecture}, and this computer is {boards.OWN}" if is_other else kvm.why_not()
        accelerator = "tcg" if why_not else "kvm"
        if why_not:
            log.info("machine %s is emulated in software: %s", machine.id, why_not)
        group_of(machine.id).make()
        outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        supervisor.write(folder, machine, accelerator=accelerator, namespace=outside)
        is_held, is_held_end = os.pipe()  # slirp4netns reads it, the supervisor holds its other end
        try:
            command = [
                *_namespaces(machine.id),
                sys.executable, "-m", "imagepipe.local.machines.qemu.supervisor", str(folder),
            ]  # fmt: skip
            process = launch.start(command, folder=folder, held=[is_held_end, outside], doing="preparing its network")
            children.append(process)
            pid = _supervisor(machine.id, process)
            join = launch.join_command(machine.id)
            children.append(slirp.open_network(namespace_pid=pid, folder=folder, join=join, exit_fd=is_held))
        finally:
            for fd in (is_held, is_held_end, outside):
                os.close(fd)
        record = replace(record, supervisor=Process.of(pid))
        self._open_ports(record)
        records.write(folder, record)
        launch.boot(process)
        return record

    def _wait_until_up(self, record: Record, shell: subprocess.Popen[bytes]) -> None:
        folder = self._folder / record.machine.id
        for _ in tries(UP_SECONDS, pause=0.05):
            if shell.poll() is not None:
                said = (folder / "supervisor.log").read_text(errors="replace").strip()[-1000:]
                raise MachineError(f"QEMU ended: {said or 'it said nothing'}")
            with suppress(MachineError):
                if qmp.ask(folder, "query-status")["running"]:
                    return
        raise MachineError(f"QEMU did not start within {UP_SECONDS:.0f} s")

    def _check_attached(self, record: Record, disk: Disk) -> None:
        letter = slots.port(disk.device)
        taken = [each.device for each in record.machine.disks[1:] if slots.port(each.device) == letter]
        if not letter:
            raise MachineError(
                f"attaching {disk.device} to {record.machine.id}: a running virtual machine takes disks at"
                f" /dev/sd[{slots.PORTS[0]}-{slots.PORTS[-1]}]; stop it first to use another name"
            )
        if taken and taken != [disk.device]:
            raise MachineError(f"attaching {disk.device} to {record.machine.id}: {taken[0]} has its slot")

    def _plug(self, record: Record, disk: Disk) -> None:
        folder = self._folder / record.machine.id
        _mark_foreign(record.machine)
        supervisor.rewrite(folder, record.machine)
        if (folder / qmp.SOCKET).exists():  # else the next boot reads what was written
            slots.plug(folder, disk.path, supervisor.serial(disk.path), slots.port(disk.device))

    def _unplug(self, record: Record, disk: Disk) -> None:
        """Ask the guest's kernel to release the disk. Linux releases a mounted one too, as if it were pulled out."""
        folder = self._folder / record.machine.id
        rest = tuple(each for each in record.machine.disks if each != disk)
        supervisor.rewrite(folder, replace(record.machine, disks=rest))
        if (folder / qmp.SOCKET).exists():
            slots.unplug(folder, supervisor.serial(disk.path))

    def _resize(self, record: Record, disk: Disk) -> None:
        folder = self._folder / record.machine.id
        if (folder / qmp.SOCKET).exists():
            slots.resize(folder, supervisor.serial(disk.path), disk.path.stat().st_size)

    def _publish_metadata(self, record: Record) -> None:
        supervisor.rewrite(self._folder / record.machine.id, record.machine)

    def _ask_to_power_off(self, record: Record) -> bool:
        (self._folder / record.machine.id / supervisor.REBOOT).unlink(missing_ok=True)
        return self._push_power_button(record, until=self.stop_seconds)

    def _push_power_button(self, record: Record, *, until: float, at_last: str = "") -> bool:
        """Push the power button until the guest reacts; return false if QEMU does not answer."""
        folder = self._folder / record.machine.id
        try:
            qemu_pid = qmp.ask(folder, "query-name") and self._qemu(record)
            qmp.ask(folder, "system_powerdown")
        except MachineError:
            return False

        def again() -> None:
            end = time.monotonic() + until
            while time.monotonic() < end:
                time.sleep(PUSH_SECONDS)
                if self._qemu(record) != qemu_pid:
                    return
                with suppress(MachineError):
                    qmp.ask(folder, "system_powerdown")
            if at_last:
                with suppress(MachineError):
                    qmp.ask(folder, at_last)

        threading.Thread(target=again, name=f"power button of {record.machine.id}", daemon=True).start()
        return True

    def _qemu(self, record: Record) -> int:
        """Return the QEMU process of the machine's current boot; 0 between two boots."""
        for pid in group_of(record.machine.id).processes():
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system"):
                    return pid
        return 0

    @contextmanager
    def _frozen(self, record: Record) -> Iterator[None]:
        """Stop the processors. The files are then as after a power cut, which journals survive.

        EC2's snapshots of running instances are in the same state.
        """
        folder = self._folder / record.machine.id
        qmp.ask(folder, "stop")
        try:
            yield
        finally:
            qmp.ask(folder, "cont")

    def _unfreeze(self, record: Record) -> None:
        with suppress(MachineError):
            qmp.ask(self._folder / record.machine.id, "cont")

    def _listening(self, record: Record) -> frozenset[Port]:
        return frozenset(Port("tcp", number) for number in WELL_KNOWN)

    def _forward(self, forwarder: slirp.Forwarder, ports: frozenset[Port]) -> None:
        """Forward in two steps: QEMU from the namespace to the guest, slirp4netns from this computer to it."""
        file = forwarder.folder / supervisor.FORWARDS
        present = set(file.read_text().split()) if file.exists() else set()
        wanted = {supervisor.forwarding(port): port for port in ports}
        file.write_text("\n".join(sorted(wanted)))  # for the next boot
        if (forwarder.folder / qmp.SOCKET).exists():
            for each in sorted(present - wanted.keys()):
                qmp.monitor(forwarder.folder, f"hostfwd_remove net {each.rpartition('-')[0]}", answer="removed")
            for each in sorted(wanted.keys() - present):
                qmp.monitor(forwarder.folder, f"hostfwd_add net {each}")
        forwarder.set_forwards(ports)


def _mark_foreign(machine: Machine) -> None:
    """Mark all disks if one of them was imported: the guest may copy foreign data to any of them."""
    if any(foreign.is_foreign(disk.path) for disk in machine.disks):
        for disk in machine.disks:
            foreign.mark(disk.path)


def _namespaces(machine_id: str) -> list[str]:
    """Return the prefix of the supervisor's command that gives it namespaces, in the machine's group."""
    if rootless.is_plain_user():
        return list(launch.OWN_NAMESPACES)
    return [*launch.join_command(machine_id), "unshare", "--mount", "--net", "--propagation", "slave"]


def _supervisor(machine_id: str, process: subprocess.Popen[bytes]) -> int:
    """Return the process id of a started supervisor; for a plain user it is a child of the started process."""
    pid = NamespaceGroup(machine_id).leader() if rootless.is_plain_user() else process.pid
    if pid is None:
        raise MachineError("the supervisor ended at once")
    return pid


def qemu_folder(folder: Path) -> Path:
    """Return the folder of QEMU's machines, beside the store's folder of containers."""
    return folder.with_name(f"{folder.name}-qemu")
