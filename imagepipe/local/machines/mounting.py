"""Machines whose root file system this computer's kernel mounts, in the namespaces of their supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagepipe.local.host import freeze
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.machines.records import Record
from imagepipe.local.machines.supervised import SupervisedDriver

FROZEN = "frozen"
"""A file that exists while the machine's file systems may be frozen."""


class MountingDriver(SupervisedDriver):
    """Holds the disks of a running machine still by freezing their file systems."""

    scratch = (*SupervisedDriver.scratch, FROZEN)

    @contextmanager
    def _frozen(self, record: Record) -> Iterator[None]:
        places = [self._root_seen_from_host(record)]
        init = MachineGroup(record.machine.id).init()
        if init is not None and len(record.devices) > 1:
            places += freeze.mounted(init, record.devices[1:])
        mark = self._folder / record.machine.id / FROZEN
        mark.touch()
        with freeze.frozen(places):
            yield
        mark.unlink(missing_ok=True)

    def _unfreeze(self, record: Record) -> None:
        mark = self._folder / record.machine.id / FROZEN
        if mark.exists():  # without it, starting fsfreeze is saved
            freeze.thaw([self._root_seen_from_host(record)])
            mark.unlink(missing_ok=True)

    def _root_seen_from_host(self, record: Record) -> Path:
        assert record.supervisor is not None
        return Path(f"/proc/{record.supervisor.pid}/root{self._folder / record.machine.id / 'root'}")
