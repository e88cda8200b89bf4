"""Volumes and snapshots as files: bytes shared, nothing half made, no writing into a full disk."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from imagepipe.local.disks.files import DiskError, Disks, StoreFull

MIB = 1 << 20


@pytest.fixture
def disks(tmp_path: Path) -> Disks:
    return Disks(tmp_path, reserve_bytes=0)


def write(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_blank_volume_has_its_size_and_costs_nothing(disks: Disks) -> None:
    path = disks.create_volume("vol-1", size_bytes=8 << 30, snapshot_id=None)
    assert path.stat().st_size == 8 << 30
    assert allocated(path) == 0


def test_a_volume_has_the_snapshots_bytes_and_its_writes_do_not_reach_the_snapshot(disks: Disks) -> None:
    write(disks.create_volume("vol-1", size_bytes=64 * MIB, snapshot_id=None), 40 * MIB, b"first")
    disks.snapshot("vol-1", "snap-1")
    second = disks.create_volume("vol-2", size_bytes=64 * MIB, snapshot_id="snap-1")
    write(second, 40 * MIB, b"other")
    assert disks.snapshot_path("snap-1").read_bytes()[40 * MIB :][:5] == b"first"
    assert second.read_bytes()[40 * MIB :][:5] == b"other"


def test_a_snapshot_keeps_the_bytes_of_its_moment_and_stays_sparse(disks: Disks) -> None:
    volume = disks.create_volume("vol-1", size_bytes=256 * MIB, snapshot_id=None)
    write(volume, 100 * MIB, b"x" * MIB)
    disks.snapshot("vol-1", "snap-1")
    write(volume, 100 * MIB, b"y" * MIB)
    kept = disks.snapshot_path("snap-1")
    assert kept.stat().st_size == 256 * MIB
    assert allocated(kept) <= 2 * MIB
    with kept.open("rb") as file:
        file.seek(100 * MIB)
        assert file.read(MIB) == b"x" * MIB
    assert kept.stat().st_mode & 0o222 == 0


def test_copies_of_a_snapshot_cost_no_room_and_outlive_it(disks: Disks) -> None:
    write(disks.create_volume("vol-1", size_bytes=16 * MIB, snapshot_id=None), 0, os.urandom(4 * MIB))
    disks.snapshot("vol-1", "snap-1")
    before = disks.used_bytes()
    for region in ("a", "b", "c", "d"):
        disks.copy_snapshot("snap-1", f"snap-{region}")
    assert disks.used_bytes() == before
    disks.delete_snapshot("snap-1")
    assert disks.snapshot_path("snap-d").stat().st_size == 16 * MIB
    assert disks.used_bytes() == before


def test_an_adopted_file_is_shared_with_the_snapshot(disks: Disks, tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(b"b" * MIB)
    disks.adopt_snapshot(base, "snap-base")
    assert disks.snapshot_path("snap-base").samefile(base)


def test_deleting_twice_is_success(disks: Disks) -> None:
    disks.delete_volume("vol-none")
    disks.delete_snapshot("snap-none")


def test_a_volume_smaller_than_its_snapshot_is_refused(disks: Disks) -> None:
    disks.create_volume("vol-1", size_bytes=2 * MIB, snapshot_id=None)
    disks.snapshot("vol-1", "snap-1")
    with pytest.raises(DiskError, match="smaller than snap-1"):
        disks.create_volume("vol-2", size_bytes=MIB, snapshot_id="snap-1")
    assert not disks.volume_path("vol-2").exists()


def test_a_full_store_refuses_before_it_writes_and_says_how_much_is_missing(tmp_path: Path) -> None:
    roomy = Disks(tmp_path, reserve_bytes=0)
    write(roomy.create_volume("vol-1", size_bytes=16 * MIB, snapshot_id=None), 0, b"z" * 4 * MIB)
    full = Disks(tmp_path, reserve_bytes=1 << 60)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreFull, match=r"[1-9]\d* MiB free; [4-9] MiB are needed"):
        full.snapshot("vol-1", "snap-1")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_copy_leaves_no_file(disks: Disks, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disks.snapshot("vol-none", "snap-1")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_sweep_deletes_half_made_files_of_a_killed_process(disks: Disks, tmp_path: Path) -> None:
    half = tmp_path / "snapshots" / ".snap-1.raw.0badcafe.half"
    half.write_bytes(b"half")
    whole = disks.create_volume("vol-1", size_bytes=MIB, snapshot_id=None)
    disks.sweep()
    assert not half.exists()
    assert whole.exists()


def test_a_larger_volume_has_a_larger_file_system(disks: Disks) -> None:
    small = disks.create_volume("vol-1", size_bytes=32 * MIB, snapshot_id=None)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(small)], check=True)
    disks.snapshot("vol-1", "snap-1")
    large = disks.create_volume("vol-2", size_bytes=128 * MIB, snapshot_id="snap-1")
    header = subprocess.run(["dumpe2fs", "-h", str(large)], check=True, capture_output=True, text=True).stdout
    fields = dict(line.split(":", 1) for line in header.splitlines() if ":" in line)
    assert int(fields["Block count"]) * int(fields["Block size"]) == 128 * MIB
    subprocess.run(["e2fsck", "-fn", str(large)], check=True, capture_output=True)


def test_a_larger_volume_without_a_known_file_system_is_left_as_it_is(disks: Disks) -> None:
    write(disks.create_volume("vol-1", size_bytes=2 * MIB, snapshot_id=None), 512, b"raw")
    disks.snapshot("vol-1", "snap-1")
    large = disks.create_volume("vol-2", size_bytes=4 * MIB, snapshot_id="snap-1")
    assert large.read_bytes()[512:515] == b"raw"
