"""The lines of /etc/fstab, read from a tree that is not trusted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagepipe.local.machines.fstab import entries, names, unsupported_entries


def tree(folder: Path, text: str) -> Path:
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc/fstab").write_text(text)
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "LABEL=rootfs / ext4 defaults 0 1",
        "UUID=1-2 /srv xfs nofail",
        "/dev/nvme1n1 /srv ext4",
        "/dev/xvdf /srv ext4 defaults 0 2",
        "/dev/disk/by-label/data /srv ext4 defaults 0 2",
        "PARTUUID=1 /srv ext4 noauto 0 0",
        "tmpfs /tmp tmpfs size=1g 0 0",
        "10.0.0.1:/share /mnt nfs _netdev 0 0",
        "# PARTUUID=1 /srv ext4 defaults",
        "broken",
        "",
    ],
)
def test_a_container_mounts_whole_disks_and_leaves_the_others_to_systemd(tmp_path: Path, line: str) -> None:
    assert unsupported_entries(entries(tree(tmp_path, f"{line}\n"))) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("PARTUUID=1-01 /srv ext4 nofail", "partitions"),
        ("/dev/xvdf1 /srv ext4 defaults 0 2", "partitions"),
        ("/dev/mapper/vg-data /srv ext4 defaults 0 2", "LVM"),
        ("UUID=1 none swap sw 0 0", "swap"),
        ("UUID=1 /srv ext4 x-systemd.makefs 0 0", "udev"),
        ("PARTLABEL=data /srv ext4 noauto,x-systemd.automount", "partitions"),
    ],
)
def test_a_disk_beyond_a_container_has_a_reason(tmp_path: Path, line: str, why: str) -> None:
    [(entry, reason)] = unsupported_entries(entries(tree(tmp_path, f"{line}\n")))
    assert entry.what == line.split()[0]
    assert why in reason


def test_a_link_or_a_pipe_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    root = tree(tmp_path, "")
    secret = tmp_path / "secret"
    secret.write_text("PARTUUID=1 /srv ext4 defaults 0 0\n")
    (root / "etc/fstab").unlink()
    (root / "etc/fstab").symlink_to(secret)
    assert entries(root) == []
    (root / "etc/fstab").unlink()
    os.mkfifo(root / "etc/fstab")
    assert entries(root) == []
    (root / "etc/fstab").unlink()
    (root / "etc").rmdir()
    assert entries(root) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other/fstab").write_text(secret.read_text())
    (root / "etc").symlink_to(tmp_path / "other")
    assert entries(root) == []


def test_a_disk_has_the_names_of_an_instance() -> None:
    assert names("/dev/sdf", 1) == ["/dev/sdf", "/dev/xvdf", "/dev/nvme1n1"]
    assert names("/dev/xvdg", 2) == ["/dev/xvdg", "/dev/sdg", "/dev/nvme2n1"]
    assert names("/dev/xvda", 0) == ["/dev/xvda"]
