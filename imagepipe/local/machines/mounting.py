"""Machines whose root file system this computer's kernel mounts, in the namespaces of their supervisor."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from imagepipe.local.host import freeze
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.machines.records import Record
from imagepipe.local.machines.supervised import SupervisedDriver


class MountingDriver(SupervisedDriver):
    """Freezes the disks of a running machine by freezing their file systems."""

    def _frozen(self, record: Record) -> AbstractContextManager[None]:
        places = [self._root_seen_from_host(record)]
        init = MachineGroup(record.machine.id).init()
        if init is not None and len(record.devices) > 1:
            places += freeze.mounted(init, record.devices[1:])
        return freeze.frozen(places)

    def _unfreeze(self, record: Record) -> None:
        # Always: the machine may have frozen its root by itself, as the scrub of a spot instance does.
        freeze.thaw(self._root_seen_from_host(record))

    def _root_seen_from_host(self, record: Record) -> Path:
        assert record.supervisor is not None
        return Path(f"/proc/{record.supervisor.pid}/root{self._folder / record.machine.id / 'root'}")
