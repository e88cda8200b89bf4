"""How a container is started: what it is told, and what it must not find."""

from __future__ import annotations

from pathlib import Path

from imagepipe.local.machines.driver import Disk, Machine, Seed
from imagepipe.local.machines.nspawn.supervisor import (
    DISKS,
    names_of,
    nspawn_arguments,
    read_names,
    write_names,
)

MACHINE = Machine(
    id="i-1",
    address="127.42.1.4",
    disks=(Disk("/dev/xvda", Path("/d/1")), Disk("/dev/xvdf", Path("/d/2"))),
    seed=Seed("i-1", "host", "us-east-1", b"secret words", ()),
)


def test_the_root_is_shown_read_only_under_its_own_and_ec2s_name() -> None:
    words = nspawn_arguments(MACHINE, "/dev/loop3", Path("/s/seed"))
    assert "--bind-ro=/dev/loop3:/dev/xvda" in words
    assert "--bind-ro=/dev/loop3" in words


def test_further_disks_are_shown_under_their_own_and_ec2s_names_at_every_boot(tmp_path: Path) -> None:
    names = names_of(MACHINE, ("/dev/loop3", "/dev/loop4"))
    assert set(names) == {"/dev/loop4", "/dev/xvdf", "/dev/sdf", "/dev/nvme1n1"}
    assert set(names.values()) == {"/dev/loop4"}
    write_names(tmp_path, names)
    assert (tmp_path / DISKS).read_text().splitlines()[0] == "--bind=/dev/loop4:/dev/loop4"
    assert read_names(tmp_path) == names
    write_names(tmp_path, {})
    assert read_names(tmp_path) == {}


def test_nothing_of_the_hosts_is_written_into_the_machine() -> None:
    words = nspawn_arguments(MACHINE, "/dev/loop3", Path("/s/seed"))
    assert {"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no"} <= set(words)


def test_cloud_init_finds_its_seed_and_leaves_the_network_alone_and_no_secret_is_a_word() -> None:
    words = nspawn_arguments(MACHINE, "/dev/loop3", Path("/s/seed"))
    assert "ds=nocloud;i=i-1;s=/run/imagepipe-seed/" in words
    assert "network-config=disabled" in words
    assert not [word for word in words if "secret" in word]
