"""Machines as systemd-nspawn containers on raw disks: Linux as root, seconds to boot, no virtualisation needed.

The supervisor is a shell (see `supervisor`), with nspawn and the container's own processes below it.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from imagepipe.local.host import loop
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.waiting import tries
from imagepipe.local.machines import fstab, launch, records
from imagepipe.local.machines.guest import imds, slirp
from imagepipe.local.machines.guest.seed import write_seed
from imagepipe.local.machines.mounting import MountingDriver
from imagepipe.local.machines.nspawn import holder, supervisor
from imagepipe.local.machines.records import Process, Record

log = logging.getLogger(__name__)

POWEROFF = signal.SIGRTMIN + 4  # systemd(1), SIGNALS
REBOOT = signal.SIGRTMIN + 5
INIT_SECONDS = 20


class ContainerDriver(MountingDriver):
    """Containers that boot."""

    name = "container"
    scratch = (*MountingDriver.scratch, fstab.FILE, supervisor.DISKS)

    def reboot(self, machine_id: str) -> None:
        self._get(machine_id)
        init = MachineGroup(machine_id).init()
        if init is None:  # between two boots
            return
        with suppress(ProcessLookupError):
            os.kill(init, REBOOT)

    def _ask_to_power_off(self, record: Record) -> bool:
        init = MachineGroup(record.machine.id).init()
        if init is None:
            return False
        with suppress(ProcessLookupError):
            os.kill(init, POWEROFF)
        return True

    def _launch(self, folder: Path, record: Record, children: list[subprocess.Popen[bytes]]) -> Record:
        machine = record.machine
        launch.refuse_foreign(machine.disks)
        MachineGroup(machine.id).make()
        join = launch.join_command(machine.id)
        write_seed(folder / "seed", machine.seed)
        fstab.write_generator(folder, machine)
        loops: list[loop.Loop] = []
        outside = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        imds.write(folder, machine, namespace=outside)
        is_held, is_held_end = os.pipe()  # slirp4netns reads it, the supervisor holds its other end
        try:
            loops += [loop.attach(disk.path) for disk in machine.disks]
            devices = tuple(each.device for each in loops)
            supervisor.write_names(folder, supervisor.names_of(machine, devices))
            held = [loops[0].fd, is_held_end, outside]
            shell = supervisor.launch(machine, devices[0], join=join, folder=folder, held=held)
            children.append(shell)
            record = replace(record, supervisor=Process.of(shell.pid))
            for each in loops[1:]:
                self._hold(record, each)
            self._check_fstab(machine.id, record)
            children.append(slirp.open_network(namespace_pid=shell.pid, folder=folder, join=join, exit_fd=is_held))
        finally:
            for each in loops:
                each.close()
            for fd in (is_held, is_held_end, outside):
                os.close(fd)
        self._open_ports(record)
        records.write(folder, record)
        launch.boot(shell)
        return record

    def _publish_metadata(self, record: Record) -> None:
        imds.rewrite(self._folder / record.machine.id, record.machine)

    def _names(self, record: Record) -> dict[str, str]:
        return supervisor.read_names(self._folder / record.machine.id)

    def _set_names(self, record: Record, names: Mapping[str, str]) -> None:
        folder = self._folder / record.machine.id
        fstab.write_generator(folder, record.machine)
        supervisor.write_names(folder, names)

    def _hold(self, record: Record, held: loop.Loop) -> None:
        assert record.supervisor is not None
        words = [str(record.supervisor.pid), record.supervisor.started, held.device]
        command = [*launch.join_command(record.machine.id), sys.executable, "-I", "-S", holder.__file__, *words]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, pass_fds=(held.fd,), check=False
        )  # fmt: skip
        if done.returncode != 0:
            output = done.stderr.decode(errors="replace").strip()[-300:]
            raise MachineError(f"holding {held.device}: {output or 'the machine has ended'}")

    def _release(self, record: Record, device: str) -> None:
        for pid in MachineGroup(record.machine.id).processes():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if holder.__file__.encode() in words and device.encode() in words:
                    os.kill(pid, signal.SIGKILL)

    def _check_fstab(self, machine_id: str, record: Record) -> None:
        """Report entries that an instance would mount and a container cannot. Raises MachineError for required ones."""
        for entry, why in fstab.unsupported_entries(fstab.entries(self._root_seen_from_host(record))):
            text = f"/etc/fstab mounts {entry.what} at {entry.where}: {why}"
            if not entry.is_optional and entry.kind != "swap":
                raise MachineError(
                    f"{text}. Its data would go to the root disk. Add nofail to the line, or boot the image in QEMU:"
                    f" IMAGEPIPE_LOCAL_DRIVER=qemu imagepipe local serve"
                )
            log.warning("machine %s: %s", machine_id, text)
            with (self._folder / machine_id / "console.log").open("a", encoding="utf-8") as console:
                console.write(f"imagepipe: {text}\r\n")

    def _wait_until_up(self, record: Record, shell: subprocess.Popen[bytes]) -> None:
        for _ in tries(INIT_SECONDS, pause=0.01):
            if MachineGroup(record.machine.id).init() is not None:
                return
            if shell.poll() is not None:
                said = self.console(record.machine.id).decode(errors="replace").strip()[-1000:]
                raise MachineError(f"systemd-nspawn exited with {shell.returncode}: {said}")
        raise MachineError(f"no init within {INIT_SECONDS} s")
