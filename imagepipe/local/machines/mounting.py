"""Machines whose root file system this computer's kernel mounts, in the namespaces of their supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagepipe.local.host import freeze
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.machines.record import Record
from imagepipe.local.machines.supervised import SupervisedDriver

FROZEN = "frozen"
"""A file that exists while the machine's file systems may be frozen."""


class MountingDriver(SupervisedDriver):
    """Holds the disks of a running machine still by freezing their file systems."""

    scratch = (*SupervisedDriver.scratch, FROZEN)

    @contextmanager
    def _frozen(self, kept: Record) -> Iterator[None]:
        places = [self._root_seen_from_host(kept)]
        init = MachineGroup(kept.machine.id).init()
        if init is not None and len(kept.devices) > 1:
            places += freeze.mounted(init, kept.devices[1:])
        mark = self._folder / kept.machine.id / FROZEN
        mark.touch()
        with freeze.frozen(places):
            yield
        mark.unlink(missing_ok=True)

    def _unfreeze(self, kept: Record) -> None:
        mark = self._folder / kept.machine.id / FROZEN
        if mark.exists():  # without it, starting fsfreeze is saved
            freeze.thaw([self._root_seen_from_host(kept)])
            mark.unlink(missing_ok=True)

    def _root_seen_from_host(self, kept: Record) -> Path:
        assert kept.supervisor is not None
        return Path(f"/proc/{kept.supervisor.pid}/root{self._folder / kept.machine.id / 'root'}")
