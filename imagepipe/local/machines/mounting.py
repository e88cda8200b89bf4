"""Machines whose root file system this computer's kernel mounts, in the namespaces of their supervisor."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from imagepipe.local.host import freeze, loop
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import DiskBusy, MachineError
from imagepipe.local.host.waiting import tries
from imagepipe.local.machines import fstab, launch
from imagepipe.local.machines.driver import Disk
from imagepipe.local.machines.records import Record
from imagepipe.local.machines.supervised import SupervisedDriver

BOOT_SECONDS = 20.0  # between two boots, until the next PID 1 has a /dev
FREE_SECONDS = 5.0  # the kernel writes what is still in memory before it frees a loop device
DEV = "/dev/"


class MountingDriver(SupervisedDriver):
    """Machines with loop devices: freezes them by their file systems, and plugs them in as device nodes."""

    # Implemented by each kind of machine.

    @abstractmethod
    def _names(self, record: Record) -> dict[str, str]:
        """Map the names in /dev that the next boot gives to disks to their loop devices."""

    @abstractmethod
    def _set_names(self, record: Record, names: Mapping[str, str]) -> None:
        """Set the names of the next boot."""

    @abstractmethod
    def _hold(self, record: Record, held: loop.Loop) -> None:
        """Have a process of the machine hold this loop device open."""

    @abstractmethod
    def _release(self, record: Record, device: str) -> None:
        """Have the process that holds this loop device close it."""

    # Disks of running machines.

    def _check_attached(self, record: Record, disk: Disk) -> None:
        launch.refuse_foreign([disk])

    def _plug(self, record: Record, disk: Disk) -> None:
        device = self._held_device(record, disk)
        names = self._names(record)
        if device not in names.values():
            number = next(number for number in itertools.count(1) if f"/dev/nvme{number}n1" not in names)
            names |= dict.fromkeys([device, *fstab.names(disk.device, number)], device)
            self._set_names(record, names)
        with _guest_dev(record.machine.id) as folder:
            for name in (name for name, target in names.items() if target == device):
                _make_node(folder, name, Path(device).stat().st_rdev)

    def _held_device(self, record: Record, disk: Disk) -> str:
        """Return the loop device over a disk, which a process of the machine holds."""
        if devices := loop.devices_of(frozenset({disk.path})):
            return devices[0]
        made = loop.attach(disk.path)
        try:
            self._hold(record, made)
        finally:
            made.close()
        return made.device

    def _unplug(self, record: Record, disk: Disk) -> None:
        paths = frozenset({disk.path})
        devices = loop.devices_of(paths)
        names = self._names(record)
        kept = {name: device for name, device in names.items() if device not in devices}
        if kept != names:
            self._set_names(record, kept)  # first: a reboot frees a disk that is mounted now
        for device in devices:
            if _is_claimed(device):
                raise DiskBusy(f"{disk.device} is mounted in {record.machine.id}")
            if MachineGroup(record.machine.id).init() is not None:
                with _guest_dev(record.machine.id) as folder:
                    _remove_nodes(folder, Path(device).stat().st_rdev)
            self._release(record, device)
        if not any(not loop.devices_of(paths) for _ in tries(FREE_SECONDS, pause=0.005)):
            raise DiskBusy(f"a process in {record.machine.id} uses {disk.device}")

    def _resize(self, record: Record, disk: Disk) -> None:
        for device in loop.devices_of(frozenset({disk.path})):
            loop.set_capacity(device)

    # Frozen disks.

    def _frozen(self, record: Record) -> AbstractContextManager[None]:
        places = [self._root_seen_from_host(record)]
        init = MachineGroup(record.machine.id).init()
        others = loop.devices_of(frozenset(disk.path for disk in record.machine.disks[1:]))
        if init is not None and others:
            places += freeze.mounted(init, others)
        return freeze.frozen(places)

    def _unfreeze(self, record: Record) -> None:
        # Always: the machine may have frozen its root by itself, as the scrub of a spot instance does.
        freeze.thaw(self._root_seen_from_host(record))

    def _root_seen_from_host(self, record: Record) -> Path:
        assert record.supervisor is not None
        return Path(f"/proc/{record.supervisor.pid}/root{self._folder / record.machine.id / 'root'}")


def _is_claimed(device: str) -> bool:
    """Tell if a block device is mounted, in whatever namespace, or in use by the kernel in another way (open(2))."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as problem:
        if problem.errno == errno.EBUSY:
            return True
        raise
    return False


@contextmanager
def _guest_dev(machine_id: str) -> Iterator[int]:
    """Open the /dev of a machine, between two boots that of the next one. Raises MachineError.

    Follows no link of the machine's. A PID 1 that has just started still sees this computer's /dev, or has an empty
    folder of the disk there; neither is used.
    """
    for _ in tries(BOOT_SECONDS, pause=0.01):
        folder = _open_dev(MachineGroup(machine_id).init())
        if folder is not None:
            break
    else:
        raise MachineError(f"{machine_id} has no /dev within {BOOT_SECONDS:.0f} s")
    try:
        yield folder
    finally:
        os.close(folder)


def _open_dev(init: int | None) -> int | None:
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    with suppress(OSError):
        root = os.open(f"/proc/{init}/root", flags | os.O_PATH)
        try:
            folder = os.open("dev", flags | os.O_NOFOLLOW, dir_fd=root)
            if os.fstat(folder).st_dev not in (os.fstat(root).st_dev, Path("/dev").stat().st_dev):
                return folder
            os.close(folder)
        finally:
            os.close(root)
    return None


def _make_node(folder: int, name: str, number: int) -> None:
    """Make the node of a block device, in place of the node of another one."""
    own = name.removeprefix(DEV)
    with suppress(FileNotFoundError):
        present = os.stat(own, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISBLK(present.st_mode):
            raise MachineError(f"the machine has a file of its own at {name}")
        if present.st_rdev == number:
            return
        os.unlink(own, dir_fd=folder)
    os.mknod(own, stat.S_IFBLK | 0o660, number, dir_fd=folder)


def _remove_nodes(folder: int, number: int) -> None:
    """Delete all nodes of this block device in the folder."""
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            present = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISBLK(present.st_mode) and present.st_rdev == number:
                os.unlink(name, dir_fd=folder)
