"""Files and folders, against a real OpenSSH server."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from imagepipe.communicator.ssh import Result
from imagepipe.communicator.upload import Placement, upload_bytes, upload_path
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
    assert not (folder / "run.sh").is_symlink()


def test_bytes_become_a_file(shell: Shell, folder: Path) -> None:
    content = os.urandom(300_000)
    placement = Placement(f"{folder}/b", sudo=False, mode="0640")
    result = upload_bytes(shell.connection, content, placement, shell.watch())
    assert result.code == 0
    assert (folder / "b").read_bytes() == content


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
