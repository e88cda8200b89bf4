"""Nothing is deleted across a mount point. What mounts here does so in a mount namespace that ends with the test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imagepipe.deletion import delete_tree, mount_points

DELETE = "import sys; from pathlib import Path; from imagepipe.deletion import delete_tree; delete_tree(Path('tree'))"
needs_root = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts as root")


def in_namespace(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a private mount namespace; `delete` in it deletes the folder `tree`."""
    text = f'set -e\ndelete() {{ "{sys.executable}" -c "{DELETE}"; }}\n{script}'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", text],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_folder_with_all_kinds_of_files_is_deleted(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/file").write_text("x")
    os.mkfifo(tree / "a/fifo")
    (tree / "link").symlink_to(tmp_path)
    (tree / "dangling").symlink_to("nowhere")
    (tree / os.fsdecode(b"odd \xff\n name")).touch()
    (tmp_path / "canary").touch()
    delete_tree(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["canary"]


def test_a_folder_that_does_not_exist_is_fine(tmp_path: Path) -> None:
    delete_tree(tmp_path / "tree")


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "canary").touch()
    (tmp_path / "tree").symlink_to(tmp_path)
    with pytest.raises(OSError, match="tree"):
        delete_tree(tmp_path / "tree")
    assert (tmp_path / "canary").exists()


@needs_root
@pytest.mark.parametrize(
    "mount",
    [
        "mount --bind elsewhere tree/in/point",
        "mount --bind elsewhere tree",
        "mount --rbind elsewhere 'tree/odd name'",
        "mount -t tmpfs none tree/in/point && touch tree/in/point/canary",
        "mount --bind elsewhere/canary tree/file",
        "mount --bind elsewhere tree/in && mkdir -p tree/in/x",
    ],
    ids=["bind", "the folder itself", "odd name", "tmpfs", "a file", "bind, with a folder"],
)
def test_a_folder_with_a_mount_below_it_is_not_deleted_at_all(tmp_path: Path, mount: str) -> None:
    for folder in ("tree/in/point", "tree/odd name", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("tree/file", "tree/other", "elsewhere/canary"):
        (tmp_path / file).touch()
    done = in_namespace(tmp_path, f"{mount}\nif delete 2>error; then exit 9; fi\ntail -1 error")
    assert done.returncode == 0, done.stderr
    assert "not deleted, because something is mounted at" in done.stdout
    assert (tmp_path / "elsewhere/canary").exists()
    assert (tmp_path / "tree/other").exists()


@needs_root
def test_a_mount_that_the_table_does_not_show_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "tree/point").mkdir(parents=True)
    (tmp_path / "empty").touch()
    script = (
        "import sys; from pathlib import Path; from imagepipe.deletion import delete_tree;"
        " delete_tree(Path('tree'), mounts=Path('empty'))"
    )
    done = in_namespace(
        tmp_path,
        "mount -t tmpfs none tree/point; touch tree/point/canary\n"
        f'if "{sys.executable}" -c "{script}" 2>error; then exit 9; fi; tail -1 error; ls tree/point',
    )
    assert "not deleted, because it is on another file system" in done.stdout
    assert done.stdout.endswith("canary\n"), done.stderr


def test_mount_points_are_named_the_deepest_first(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        f"2 1 8:1 /x {tmp_path}/a rw - ext4 /dev/a rw\n"
        f"3 1 0:5 / {tmp_path}/a/b\\040c rw - tmpfs none rw\n"
        f"4 1 0:5 / {tmp_path}/ab rw - tmpfs none rw\n"
    )
    (tmp_path / "a").mkdir()
    assert mount_points(tmp_path / "a", mounts=table) == [tmp_path / "a/b c", tmp_path / "a"]


def test_what_others_delete_meanwhile_is_no_error(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for folder in range(40):
        (tree / str(folder)).mkdir(parents=True)
        for file in range(25):
            (tree / str(folder) / str(file)).touch()
    both = [
        subprocess.Popen([sys.executable, "-c", DELETE], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0)] * 2
    assert not tree.exists()
