"""How a container is started: what it is told, and what it must not find."""

from __future__ import annotations

from pathlib import Path

from imagepipe.local.machines.driver import Disk, Machine, Seed
from imagepipe.local.machines.nspawn.supervisor import nspawn_arguments

MACHINE = Machine(
    id="i-1",
    address="127.42.1.4",
    disks=(Disk("/dev/xvda", Path("/d/1")), Disk("/dev/xvdf", Path("/d/2"))),
    seed=Seed("i-1", "host", "us-east-1", b"secret words", ()),
)


def test_disks_are_shown_under_their_own_and_ec2s_names_and_the_root_read_only() -> None:
    words = nspawn_arguments(MACHINE, ("/dev/loop3", "/dev/loop4"), Path("/s/seed"))
    assert "--bind-ro=/dev/loop3:/dev/xvda" in words
    assert "--bind=/dev/loop4:/dev/xvdf" in words
    assert "--bind=/dev/loop4" in words


def test_nothing_of_the_hosts_is_written_into_the_machine() -> None:
    words = nspawn_arguments(MACHINE, ("/dev/loop3", "/dev/loop4"), Path("/s/seed"))
    assert {"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no"} <= set(words)


def test_cloud_init_finds_its_seed_and_leaves_the_network_alone_and_no_secret_is_a_word() -> None:
    words = nspawn_arguments(MACHINE, ("/dev/loop3", "/dev/loop4"), Path("/s/seed"))
    assert "ds=nocloud;i=i-1;s=/run/imagepipe-seed/" in words
    assert "network-config=disabled" in words
    assert not [word for word in words if "secret" in word]
