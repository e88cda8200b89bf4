"""Files and folders, against a real OpenSSH server."""

from __future__ import annotations

import io
import os
import pwd
import shlex
import socket
import stat
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imagepipe.communicator.ssh import Result
from imagepipe.communicator.tarstream import send_path
from imagepipe.communicator.upload import RECEIVER, Placement, upload_bytes, upload_path
from tests.communicator.conftest import Shell


def _upload(shell: Shell, source: str, base: Path, dest: str, **options: str) -> Result:
    return upload_path(shell.connection, source, base, Placement(dest, sudo=False, **options), shell.watch())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Our folder: `tree` with everything that a folder can have."""
    tree = tmp_path / "tree"
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "private").write_text("p")
    (tree / "private").chmod(0o600)
    (tree / "link").symlink_to("sub/deep")
    (tree / "dangling").symlink_to("nowhere")
    (tree / ".hidden").write_text("h")
    (tree / "name with 'quotes' and spaces\n").write_text("n")
    (tree / "sub" / "x").write_text("x")
    os.link(tree / "sub" / "x", tree / "sub" / "hard")
    return tmp_path


def test_a_folder_arrives_with_modes_links_and_strange_names(shell: Shell, tree: Path, folder: Path) -> None:
    assert _upload(shell, "tree", tree, f"{folder}/there").code == 0, shell.lines
    there = folder / "there"
    assert sorted(p.relative_to(there) for p in there.rglob("*")) == sorted(
        p.relative_to(tree / "tree") for p in (tree / "tree").rglob("*")
    )
    assert stat.S_IMODE((there / "run.sh").stat().st_mode) == 0o755
    assert stat.S_IMODE((there / "private").stat().st_mode) == 0o600
    assert (there / "dangling").readlink() == Path("nowhere")
    assert (there / "sub" / "x").stat().st_nlink == 2


def test_a_source_that_is_a_link_is_uploaded_under_its_own_name(shell: Shell, tree: Path, folder: Path) -> None:
    (tree / "current").symlink_to("tree")
    (tree / "app.conf").symlink_to("tree/private")
    for source in ("current", "app.conf"):
        assert _upload(shell, source, tree, f"{folder}/").code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["app.conf", "current"]
    assert (folder / "app.conf").read_text() == "p"
    assert (folder / "current" / "run.sh").is_file()
    assert _upload(shell, ".", tree / "tree", f"{folder}/").code == 0
    assert (folder / "tree" / "run.sh").is_file(), "a folder that is named by a dot has its own name"


def test_without_a_slash_the_folder_goes_into_dest_with_one(shell: Shell, tree: Path, folder: Path) -> None:
    assert _upload(shell, "tree", tree, f"{folder}/").code == 0
    assert (folder / "tree" / "run.sh").exists()


def test_with_a_slash_the_contents_go_and_what_is_there_stays(shell: Shell, tree: Path, folder: Path) -> None:
    (folder / "own").write_text("own")
    (folder / "run.sh").write_text("old")
    folder.chmod(0o711)
    assert _upload(shell, "tree/", tree, str(folder)).code == 0, shell.lines
    assert (folder / "own").read_text() == "own"
    assert (folder / "run.sh").read_text() == "#!/bin/sh\n"
    assert (folder / ".hidden").exists()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711, "the folder itself is not ours to change"


def test_a_file_takes_its_place_at_once(shell: Shell, tree: Path, folder: Path) -> None:
    place = folder / "new" / "name"
    assert _upload(shell, "tree/run.sh", tree, str(place), mode="0750").code == 0, shell.lines
    assert place.read_text() == "#!/bin/sh\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o750
    assert [p.name for p in place.parent.iterdir()] == ["name"], "no stage is left"


def test_a_link_that_is_named_is_followed(shell: Shell, tree: Path, folder: Path) -> None:
    (tree / "to").symlink_to("tree/run.sh")
    assert _upload(shell, "to", tree, f"{folder}/").code == 0
    assert not (folder / "to").is_symlink()


def test_bytes_become_a_file_that_was_modified_now(shell: Shell, folder: Path) -> None:
    content = os.urandom(300_000)
    before = int(time.time())
    placement = Placement(f"{folder}/b", sudo=False, mode="0640")
    result = upload_bytes(shell.connection, content, placement, shell.watch())
    assert result.code == 0
    assert (folder / "b").read_bytes() == content
    assert before <= (folder / "b").stat().st_mtime <= time.time()


def test_a_file_over_a_folder_is_refused_and_nothing_is_left(shell: Shell, tree: Path, folder: Path) -> None:
    (folder / "d").mkdir()
    assert _upload(shell, "tree/run.sh", tree, f"{folder}/d").code == 1
    assert "end dest with a slash" in " ".join(shell.err)
    assert [p.name for p in folder.iterdir()] == ["d"]


def test_two_thousand_files_are_one_stream(shell: Shell, tmp_path: Path, folder: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(2000):
        (many / f"{number:04}").write_bytes(b"x" * 2048)
    assert _upload(shell, "many", tmp_path, f"{folder}/many").code == 0
    assert len(list((folder / "many").iterdir())) == 2000


def _rootfs(tmp_path: Path) -> Path:
    """Our folder, laid out as a root file system, with modes as a umask of 002 makes them."""
    rootfs = tmp_path / "rootfs"
    for name in ("tmp", "etc/app.d", "opt/app/new", "lib/systemd", "link", "etc/strange\n name'"):
        (rootfs / name).mkdir(parents=True)
    for name in ("tmp/t", "etc/conf", "etc/app.d/a", "opt/app/bin", "opt/app/new/deep", "lib/systemd/unit", "link/x"):
        (rootfs / name).write_text("new")
    (rootfs / "etc/strange\n name'/f\n").write_text("new")
    (rootfs / "etc/alternative").symlink_to("conf")
    for path in rootfs.rglob("*"):
        if path.is_dir():
            path.chmod(0o775)
    return rootfs


def _root(folder: Path) -> None:
    """Fill the folder like a machine's root file system, with /lib as a link to /usr/lib."""
    for name, mode in (("tmp", 0o1777), ("etc", 0o755), ("etc/app.d", 0o700), ("opt", 0o711), ("usr/lib", 0o755)):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(mode)
    (folder / "lib").symlink_to("usr/lib")
    (folder / "elsewhere").mkdir()
    (folder / "link").symlink_to(folder / "elsewhere")
    (folder / "etc/conf").write_text("old")
    (folder / "etc/own").write_text("own")
    (folder / "etc/strange\n name'").mkdir(mode=0o750)
    (folder / "etc/alternative").symlink_to("app.d")
    os.chown(folder / "etc/app.d", 7, 7)


def _seen(folder: Path) -> dict[str, tuple[str, int, int, str]]:
    """Mode, owner, group and content of everything in a folder."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else "" if path.is_dir() else path.read_text()
        found[str(path.relative_to(folder))] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, content)
    return found


@pytest.mark.parametrize("owner", [None, "daemon:daemon"])
@pytest.mark.parametrize("slash", [True, False])
def test_existing_folders_keep_mode_and_owner_and_links_to_folders_are_followed(
    shell: Shell, tmp_path: Path, folder: Path, owner: str | None, *, slash: bool
) -> None:
    _rootfs(tmp_path)
    place = folder if slash else folder / "rootfs"
    place.mkdir(exist_ok=True)
    place.chmod(0o751)
    _root(place)
    before = _seen(place)
    options = {"owner": owner} if owner else {}
    assert _upload(shell, "rootfs/" if slash else "rootfs", tmp_path, f"{folder}/", **options).code == 0, shell.lines
    after = _seen(place)
    id = pwd.getpwnam("daemon").pw_uid if owner else 0
    new = ("-rw-r--r--", id, id, "new")
    assert after == {
        **before,
        "etc/conf": new,
        "etc/alternative": ("lrwxrwxrwx", id, id, "conf"),
        "etc/app.d/a": new,
        "etc/strange\n name'/f\n": new,
        "tmp/t": new,
        "opt/app": ("drwxrwxr-x", id, id, ""),
        "opt/app/bin": new,
        "opt/app/new": ("drwxrwxr-x", id, id, ""),
        "opt/app/new/deep": new,
        "usr/lib/systemd": ("drwxrwxr-x", id, id, ""),
        "usr/lib/systemd/unit": new,
        "elsewhere/x": new,
    }


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("etc/app.d", lambda path: path.write_text("a file")),
        ("lib", lambda path: path.symlink_to("nowhere")),
        ("opt/app/new/deep", lambda path: path.mkdir(parents=True)),
        ("tmp/t", lambda path: path.symlink_to("/usr")),
        ("etc/alternative", lambda path: path.mkdir(parents=True)),
        ("opt", lambda path: os.mkfifo(path)),
    ],
)
def test_a_tree_that_does_not_fit_changes_nothing_and_names_the_place(
    shell: Shell, tmp_path: Path, folder: Path, name: str, make: Callable[[Path], object]
) -> None:
    _rootfs(tmp_path)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    make(folder / name)
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc/conf").write_text("old")
    before = {path: path.lstat() for path in folder.rglob("*")}
    assert _upload(shell, "rootfs/", tmp_path, str(folder)).code == 1
    assert f"{folder}/{name} " in " ".join(shell.err)
    assert "nothing was changed" in " ".join(shell.err)
    after = {path: path.lstat() for path in folder.rglob("*")}
    assert {path: s.st_mode for path, s in after.items()} == {path: s.st_mode for path, s in before.items()}
    assert (folder / "etc/conf").read_text() == "old"


def test_an_upload_that_is_cut_between_two_files_changes_nothing(shell: Shell, tmp_path: Path, folder: Path) -> None:
    """tar takes a stream without an end for a whole one."""
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / "a").write_text("new")
    (ours / "b").symlink_to("a")
    (folder / "a").write_text("old")
    blocks: list[bytes] = []
    send_path(ours, "it", blocks.append)
    whole = b"".join(blocks)
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        members = {member.name: member.offset for member in tar}
    for end in (members["it/b"], members["end"]):
        words = shlex.join([str(folder), ".imagepipe-cut", "", "", "into"])
        command = f"sh -c {shlex.quote(RECEIVER)} imagepipe {words}"
        assert shell.run(command, send=whole[:end]).code != 0
        assert [path.name for path in folder.iterdir()] == ["a"]
        assert (folder / "a").read_text() == "old"


def test_the_folders_that_a_failed_upload_made_are_gone(shell: Shell, tree: Path, folder: Path) -> None:
    assert _upload(shell, "tree/", tree, f"{folder}/new/deeper/place", owner="nobody:nogroup-of-this-name").code != 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["fifo", "socket", "shorter", "gone"])
def test_a_file_that_changed_its_kind_since_it_was_checked_ends_the_upload_with_its_path(
    shell: Shell, tmp_path: Path, folder: Path, kind: str
) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    (folder / "a").write_text("old")
    if kind == "fifo":
        os.mkfifo(ours / "b")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.path.relpath(ours / "b"))
    elif kind == "shorter":
        (ours / "b").write_bytes(bytes(50_000_000))

    def changed(write: Callable[[bytes], None]) -> None:
        def shorten(block: bytes) -> None:
            os.truncate(ours / "b", 10)  # some 256 KiB of it are read
            write(block)

        send_path(source, "it", shorten if kind == "shorter" else write)

    words = shlex.join([str(folder), ".imagepipe-x", "", "", "into"])
    command = f"sh -c {shlex.quote(RECEIVER)} imagepipe {words}"
    source = ours if kind != "gone" else tmp_path / "nowhere"
    with pytest.raises(OSError, match=r"only regular|became shorter|No such file") as caught:
        shell.run(command, send=changed)
    assert caught.value.filename in (str(ours / "b"), str(tmp_path / "nowhere"))
    assert (folder / "a").read_text() == "old"


@pytest.mark.parametrize("source", ["ours/", "ours/set-id"])
def test_set_id_bits_stay_with_a_new_owner(shell: Shell, tmp_path: Path, folder: Path, source: str) -> None:
    ours = tmp_path / "ours"
    (ours / "folder").mkdir(parents=True)
    for name, mode in (("set-id", 0o6755), ("folder", 0o2770), ("plain", 0o640)):
        (ours / name).touch()
        (ours / name).chmod(mode)
    assert _upload(shell, source, tmp_path, f"{folder}/", owner="daemon").code == 0, shell.lines
    modes = {path.name: (oct(path.stat().st_mode & 0o7777), path.owner()) for path in folder.iterdir()}
    expected = {"set-id": ("0o6755", "daemon"), "folder": ("0o2770", "daemon"), "plain": ("0o640", "daemon")}
    assert modes == (expected if source == "ours/" else {"set-id": expected["set-id"]})
