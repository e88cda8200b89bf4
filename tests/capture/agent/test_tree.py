"""The tree as it is staged: odd files, what an agent before this one left, and tools that a machine has not."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from imagepipe.capture.agent import errors, tree
from imagepipe.capture.agent.errors import AgentError

LOOK = tree.FilesystemLayout("ext4")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    (made / "etc").mkdir(parents=True)
    return made


def _names(staged: tree.Staged) -> set[bytes]:
    return {os.fsencode(each.relative_to(staged.folder)) for each in staged.folder.rglob("*") if not each.is_dir()}


def _in_image(image: Path, command: str) -> str:
    done = subprocess.run(["debugfs", "-R", command, str(image)], capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def test_names_of_any_bytes_and_a_long_path_are_in_the_image(root: Path, tmp_path: Path) -> None:
    odd = [b"new\nline", b"not \xff UTF-8", "grüße".encode(), b" blank ", b"-rf", b"quo'te\"", b"x" * 255]
    for name in odd:
        (root / "etc" / os.fsdecode(name)).write_bytes(name)
    deep = root
    for _ in range(12):
        deep = deep / ("d" * 200)
        deep.mkdir()
    (deep / "file").write_bytes(b"deep")
    staged = tree.stage(root, root / tree.STAGED, ())
    assert {b"etc/" + name for name in odd} <= _names(staged)
    assert len(max(_names(staged), key=len)) > 2400
    image = tmp_path / "image"
    image.touch()
    tree.fill(staged, image, LOOK, offset=0, size=64 << 20)
    _in_image(image, f"rdump /etc {tmp_path}")
    assert {name: Path(tmp_path / "etc" / os.fsdecode(name)).read_bytes() for name in odd} == {n: n for n in odd}
    assert tree.changed(staged) == []


def test_a_file_with_as_many_names_as_may_be_is_copied_once(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ext4 takes 65,000 names: staged, a file of 40,000 would have 80,000."""
    (root / "etc/0").write_bytes(b"one file")
    for number in range(1, 10):
        os.link(root / "etc/0", root / f"etc/{number}")
    link = os.link

    def limited(source: str, made: str, *, follow_symlinks: bool) -> None:
        if os.lstat(source).st_nlink >= 13:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, made, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", limited)
    staged = tree.stage(root, root / tree.STAGED, ())
    inodes = [os.lstat(staged.folder / f"etc/{number}").st_ino for number in range(10)]
    assert len(set(inodes)) == 2
    assert staged.data_bytes <= 2 * 4096


@pytest.mark.parametrize("flag", ["i", "a"], ids=["immutable", "append-only"])
def test_what_may_not_be_linked_is_copied(root: Path, flag: str) -> None:
    for name in ("one", "other"):
        (root / "etc" / name).write_bytes(b"kept")
    os.link(root / "etc/one", root / "etc/two")
    if subprocess.run(["chattr", f"+{flag}", str(root / "etc/one")], capture_output=True, check=False).returncode:
        pytest.skip("chattr is not allowed here")
    try:
        staged = tree.stage(root, root / tree.STAGED, ())
    finally:
        subprocess.run(["chattr", f"-{flag}", str(root / "etc/one")], check=True)
    one, two = (os.lstat(staged.folder / "etc" / name) for name in ("one", "two"))
    assert one.st_ino == two.st_ino != os.lstat(root / "etc/one").st_ino
    assert (staged.folder / "etc/one").read_bytes() == b"kept"


def test_devices_and_fifos_are_kept_and_sockets_are_not(root: Path, tmp_path: Path) -> None:
    import socket

    os.mkfifo(root / "etc/fifo")
    try:
        os.mknod(root / "etc/null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("as root alone")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(root / "etc/socket"))
        staged = tree.stage(root, root / tree.STAGED, ())
    assert _names(staged) == {b"etc/fifo", b"etc/null"}
    image = tmp_path / "image"
    image.touch()
    tree.fill(staged, image, LOOK, offset=0, size=64 << 20)
    assert "Type: character special" in _in_image(image, "stat /etc/null")
    assert "Type: FIFO" in _in_image(image, "stat /etc/fifo")


def test_a_file_that_was_written_to_meanwhile_is_named_whatever_its_bytes(root: Path) -> None:
    odd = root / "etc" / os.fsdecode(b"log\xff")
    odd.write_bytes(b"a")
    staged = tree.stage(root, root / tree.STAGED, ())
    with odd.open("ab") as file:
        file.write(b"b")
    assert tree.changed(staged) == ["/etc/log\udcff"]


def test_what_a_killed_agent_left_on_another_disk_makes_room(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image half made, in memory often: the agent may have been killed for what it took."""
    other = tmp_path / "other"
    left = other / tree.STAGED / "image"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    monkeypatch.setattr(tree, "other_disks", lambda: iter([str(other)]))
    full = os.statvfs_result((4096, 4096, 1, 0, 0, 1, 0, 0, 0, 255))
    statvfs = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: full if str(path) == str(root) else statvfs(path))
    assert tree.place_for(1 << 20, root, print) == other
    assert not left.exists()


def test_a_tool_that_the_machine_has_not_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staged = tree.stage(root, root / tree.STAGED, ())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(errors, "PATHS", str(tmp_path))
    with pytest.raises(AgentError, match="filling the file system: the machine has no mke2fs") as caught:
        tree.fill(staged, tmp_path / "image", LOOK, offset=0, size=64 << 20)
    assert caught.value.hint == "install it in a provisioning step"


def test_a_file_system_that_is_too_small_says_what_to_do(root: Path, tmp_path: Path) -> None:
    (root / "etc/large").write_bytes(os.urandom(20 << 20))
    staged = tree.stage(root, root / tree.STAGED, ())
    with pytest.raises(AgentError, match="but size_gib leaves 16 MiB") as caught:
        tree.fill(staged, tmp_path / "image", LOOK, offset=0, size=16 << 20)
    assert "raise output.size_gib" in caught.value.hint
