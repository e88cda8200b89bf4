"""Disks from elsewhere keep their mark, whatever is made of them, and no container gets them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imagepipe.local.disks.files import Disks
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.foreign import is_foreign, mark, set_mode
from imagepipe.local.machines import launch
from imagepipe.local.machines.driver import Disk, Machine, Seed

MIB = 1 << 20


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path / "disks", reserve_bytes=0)


def file_system(path: Path) -> Path:
    path.touch()
    os.truncate(path, 16 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True)
    return path


def test_volumes_snapshots_and_copies_of_an_imported_disk_have_its_mark(disks: Disks, tmp_path: Path) -> None:
    source = file_system(tmp_path / "imported")
    set_mode(source, 0o400, is_foreign_itself=True)
    disks.adopt_snapshot(source, "snap-1")
    volume = disks.create_volume("vol-1", size_bytes=64 * MIB, snapshot_id="snap-1")
    disks.snapshot("vol-1", "snap-2")
    disks.copy_snapshot("snap-2", "snap-3")
    again = disks.create_volume("vol-2", size_bytes=64 * MIB, snapshot_id="snap-3")
    paths = [disks.snapshot_path("snap-1"), volume, disks.snapshot_path("snap-2"), disks.snapshot_path("snap-3"), again]
    assert [is_foreign(path) for path in paths] == [True] * 5
    assert volume.stat().st_size == 64 * MIB
    assert volume.read_bytes()[: 16 * MIB] == source.read_bytes(), "no tool of this computer has changed it"


def test_a_disk_that_is_not_imported_has_no_mark(disks: Disks, tmp_path: Path) -> None:
    source = file_system(tmp_path / "own")
    source.chmod(0o400)
    disks.adopt_snapshot(source, "snap-1")
    volume = disks.create_volume("vol-1", size_bytes=64 * MIB, snapshot_id="snap-1")
    disks.snapshot("vol-1", "snap-2")
    empty = disks.create_volume("vol-2", size_bytes=MIB, snapshot_id=None)
    assert not any(map(is_foreign, (volume, disks.snapshot_path("snap-2"), empty)))


def test_a_root_or_a_further_disk_that_was_imported_is_refused_where_the_kernel_would_mount_it(
    disks: Disks,
) -> None:
    root, further = (disks.create_volume(name, size_bytes=MIB, snapshot_id=None) for name in ("vol-1", "vol-2"))
    both = (Disk("/dev/xvda", root), Disk("/dev/sdf", further))
    machine = Machine("i-1", "127.42.0.4", both, Seed("i-1", "a", "us-east-1", b"", ()))
    launch.refuse_foreign(machine.disks)
    mark(further)
    with pytest.raises(MachineError, match=r"/dev/sdf was imported.*IMAGEPIPE_LOCAL_DRIVER=auto or qemu"):
        launch.refuse_foreign(machine.disks)
