"""The default: containers for bare file systems, which boot in seconds, and QEMU for disks that have a boot loader.

A container would not use the boot loader and kernel of such a disk, so it would not test them. A machine with an
imported disk always gets QEMU, because this computer's kernel would have to mount the disk for a container. So does
every machine of a plain user, who may not mount disks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from imagepipe.local.disks.contents import is_bare
from imagepipe.local.host import foreign, rootless
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import ARM, Disk, Driver, Ingress, Machine, Metadata
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.machines.qemu.boards import arm_problems
from imagepipe.local.machines.qemu.driver import QemuDriver
from imagepipe.local.machines.requirements import qemu_problems


class AutoDriver:
    """Chooses between two drivers by each machine's root disk."""

    name = "auto"

    def __init__(self, folder: Path) -> None:
        self._containers: Driver = ContainerDriver(folder)
        self._qemu: Driver = QemuDriver(folder)

    def choose(self, machine: Machine) -> Driver:
        """Return the driver of a machine that is not running yet."""
        is_own = machine.architecture != ARM and is_bare(machine.disks[0].path) and not _has_foreign(machine)
        return self._containers if is_own and not rootless.is_plain_user() else self._qemu

    def start(self, machine: Machine, ingress: Sequence[Ingress]) -> None:
        driver = self.choose(machine)
        problems = [*qemu_problems(), *(arm_problems() if machine.architecture == ARM else ())]
        if driver is self._qemu and problems:
            raise MachineError(f"starting {machine.id}: {_reason(machine)}, which takes QEMU: {'; '.join(problems)}")
        driver.start(machine, ingress)

    def stop(self, machine_id: str, *, force: bool = False) -> None:
        self._of(machine_id).stop(machine_id, force=force)

    def reboot(self, machine_id: str) -> None:
        self._of(machine_id).reboot(machine_id)

    def set_ingress(self, machine_id: str, ingress: Sequence[Ingress]) -> None:
        self._of(machine_id).set_ingress(machine_id, ingress)

    def set_addresses(self, machine_id: str, further: Sequence[str]) -> None:
        self._of(machine_id).set_addresses(machine_id, further)

    def attach(self, machine_id: str, disk: Disk) -> None:
        self._of(machine_id).attach(machine_id, disk)

    def detach(self, machine_id: str, device: str) -> None:
        self._of(machine_id).detach(machine_id, device)

    def resize(self, machine_id: str, device: str) -> None:
        self._of(machine_id).resize(machine_id, device)

    def set_metadata(self, machine_id: str, metadata: Metadata) -> None:
        self._of(machine_id).set_metadata(machine_id, metadata)

    def quiesced(self, machine_id: str) -> AbstractContextManager[None]:
        return self._of(machine_id).quiesced(machine_id)

    def console(self, machine_id: str) -> bytes:
        return self._qemu.console(machine_id) or self._containers.console(machine_id)

    def running(self) -> frozenset[str]:
        return self._containers.running() | self._qemu.running()

    def on_exit(self, callback: Callable[[str], None]) -> None:
        for driver in (self._containers, self._qemu):
            driver.on_exit(callback)

    def forget(self, machine_id: str) -> None:
        for driver in (self._containers, self._qemu):
            driver.forget(machine_id)

    def close(self) -> None:
        for driver in (self._containers, self._qemu):
            driver.close()

    def _of(self, machine_id: str) -> Driver:
        return self._qemu if machine_id in self._qemu.running() else self._containers


def _has_foreign(machine: Machine) -> bool:
    return any(foreign.is_foreign(disk.path) for disk in machine.disks)


def _reason(machine: Machine) -> str:
    if rootless.is_plain_user():
        return "its user is not root"
    if machine.architecture == ARM:
        return "its image is for arm64"
    return "a disk of it was imported" if _has_foreign(machine) else "its disk boots by a boot loader of its own"
