"""What is kept about a machine comes back as it was."""

from __future__ import annotations

import stat
from pathlib import Path

from imagepipe.local.machines import records
from imagepipe.local.machines.driver import Disk, Ingress, Machine, Seed
from imagepipe.local.machines.records import Process, Record

MACHINE = Machine(
    id="i-1",
    address="127.42.1.4",
    disks=(Disk("/dev/xvda", Path("/d/vol-1.raw")), Disk("/dev/xvdf", Path("/d/vol-2.raw"))),
    seed=Seed("i-1", "host", "us-east-1", b"\x1f\x8b\x00binary", ("ssh-ed25519 AAAA",)),
)
RULES = (Ingress("tcp", 22, 22, "127.0.0.1/32"), Ingress("-1", -1, -1, "0.0.0.0/0"))


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = Record(MACHINE, supervisor=Process(7, "99"), ingress=RULES)
    records.write(tmp_path, kept)
    assert records.read(tmp_path) == kept


def test_a_half_made_machine_comes_back_without_a_supervisor(tmp_path: Path) -> None:
    records.write(tmp_path, Record(MACHINE))
    assert records.read(tmp_path) == Record(MACHINE)


def test_it_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    records.write(tmp_path, Record(MACHINE))
    assert stat.S_IMODE((tmp_path / records.NAME).stat().st_mode) == 0o600


def test_nothing_is_read_where_nothing_is(tmp_path: Path) -> None:
    records.delete(tmp_path)
    assert records.read(tmp_path) is None
