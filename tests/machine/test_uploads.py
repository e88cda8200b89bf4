"""Uploads into the folders of an instance: mounts get their files, and a failed one leaves what was there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.clock import Deadline, SystemClock
from imagepipe.communicator.ssh import Result, Watch
from imagepipe.communicator.upload import Placement, upload_path
from imagepipe.engine.cancel import Cancel
from tests.machine.bakery import Booted

pytestmark = pytest.mark.machine

DEST = "/srv/place"


@pytest.fixture
def place(booted: Booted) -> Iterator[str]:
    """An empty folder on the instance, whose mounts go with it."""
    booted.sh(f"sudo mkdir {DEST}; sudo chmod 751 {DEST}")
    yield DEST
    booted.sh(
        f"for m in $(awk '$2 ~ \"^{DEST}\" {{print $2}}' /proc/mounts | sort -r); do sudo umount $m; done; "
        f"sudo rm -r --one-file-system {DEST}"
    )


def _upload(booted: Booted, source: str, base: Path, dest: str, *, owner: str | None = None) -> tuple[Result, str]:
    lines: list[str] = []
    clock = SystemClock()
    watch = Watch(lambda _, line: lines.append(line), Deadline.after(120, clock), Cancel(clock))
    placement = Placement(dest, sudo=True, owner=owner)
    return upload_path(booted.connection, source, base, placement, watch), "\n".join(lines)


def _tree(folder: Path) -> Path:
    """Ours: files for a folder, and for two that are mounts on the instance."""
    for name in ("a", "data/b", "data/sub/c", "other/d", "other/link-to"):
        (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / name).write_text("new")
    return folder


def _look(booted: Booted) -> str:
    return booted.sh(
        f"cd {DEST} && sudo find . -printf '%p %M %U ' \\( -type f -exec cat {{}} \\; -o -true \\) -printf '\\n'"
    )


def test_files_go_onto_what_is_mounted_below_the_place(booted: Booted, place: str, tmp_path: Path) -> None:
    booted.sh(
        f"cd {place} && sudo mkdir data other && sudo mount -t tmpfs -o mode=1777,uid=7 tmpfs data && "
        "sudo mkdir -p /srv/shown && sudo mount --bind /srv/shown other"
    )
    result, said = _upload(booted, "tree/", _tree(tmp_path), place, owner="daemon")
    assert result.code == 0, said
    assert booted.sh(f"cat {place}/a {place}/data/b {place}/data/sub/c /srv/shown/d") == "newnewnewnew"
    assert booted.sh(f"stat -c '%a %U' {place} {place}/other") == "751 root\n755 root"
    assert booted.sh(f"stat -c '%a %u' {place}/data; stat -c %U {place}/data/sub") == "1777 7\ndaemon"
    assert booted.sh(f"sudo find {place} /srv/shown -name '.imagepipe*'") == ""


@pytest.mark.parametrize(
    ("mount", "word"),
    [
        ("sudo mount -t tmpfs -o size=4k,nr_inodes=4 tmpfs other", "No space left"),
        ("sudo mount -t tmpfs -o ro tmpfs other", "Read-only"),
        ("echo one | sudo tee one; sudo touch other/d; sudo mount --bind one other/d", "busy"),
        ("sudo touch other/link-to; sudo mkdir other/d", "other/d is a folder"),
        ("sudo rmdir other; sudo ln -s /nowhere other", "other exists and is not a folder"),
        ("sudo rmdir other; sudo touch other", "other exists and is not a folder"),
    ],
    ids=["full", "read-only", "a mounted file", "a folder", "a dangling link", "a file"],
)
def test_an_upload_that_fails_leaves_every_file_as_it_was(
    booted: Booted, place: str, tmp_path: Path, mount: str, word: str
) -> None:
    booted.sh(f"cd {place} && sudo mkdir data other && echo old | sudo tee a data/b")
    booted.sh(f"cd {place} && {{ {mount}; }} >/dev/null")
    before = _look(booted)
    result, said = _upload(booted, "tree/", _tree(tmp_path), place)
    assert (result.code or 0) > 0
    assert word in said
    after = _look(booted)
    assert [line for line in after.splitlines() if "old" in line] == [x for x in before.splitlines() if "old" in x]
    if word != "busy":  # found when the first files are at their places already: new ones stay
        assert after == before
    assert ".imagepipe" not in after


@pytest.mark.parametrize(
    ("options", "message"),
    [("size=64k", "KiB left"), ("size=4m,nr_inodes=8", "inodes left")],
    ids=["data", "inodes"],
)
def test_an_upload_to_a_full_file_system_names_it(
    booted: Booted, place: str, tmp_path: Path, options: str, message: str
) -> None:
    booted.sh(f"sudo mount -t tmpfs -o {options} tmpfs {place}")
    (tmp_path / "many").mkdir()
    for number in range(20):
        (tmp_path / "many" / str(number)).write_bytes(b"x" * 8192)
    result, said = _upload(booted, "many", tmp_path, f"{place}/sub/")
    assert (result.code or 0) > 0
    assert "No space left on device" in said
    assert f"the file system {place} (tmpfs) is full: 0 of " in said
    assert message in said
    assert _look(booted).count("\n") == 0, "nothing is left"


def test_lib_of_a_machine_whose_usr_is_merged_is_followed(booted: Booted, tmp_path: Path) -> None:
    for name in ("lib/systemd/system/imagepipe-x.service", "tmp/x", "etc/x", "var/run/imagepipe-x"):
        (tmp_path / "rootfs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rootfs" / name).write_text("new\n")
    for path in (tmp_path / "rootfs").rglob("*"):
        path.chmod(0o775)
    look = "stat -c '%n %a %U' / /tmp /etc /lib /usr/lib /var /var/run /run /lib/systemd /lib/systemd/system"
    before = booted.sh(look)
    result, said = _upload(booted, "rootfs/", tmp_path, "/", owner="daemon")
    assert result.code == 0, said
    assert booted.sh(look) == before
    assert booted.sh("cat /usr/lib/systemd/system/imagepipe-x.service /run/imagepipe-x") == "new\nnew"
    booted.sh("sudo rm /lib/systemd/system/imagepipe-x.service /tmp/x /etc/x /run/imagepipe-x")
