"""The listing of a file system by several threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from imagepipe.hygiene import listing
from imagepipe.hygiene.listing import listed


def _all(folder: str, files: Sequence[os.DirEntry[str]]) -> tuple[list[str], int]:
    return [each.path for each in files], 0


def _tree(root: Path, folders: int) -> set[str]:
    """Make folders beside and below one another, with a file in each, and return the paths of the files."""
    paths = set()
    folder = root
    for number in range(folders):
        folder = (root if number % 7 == 0 else folder) / f"folder-{number}"
        folder.mkdir()
        (folder / "file").write_text(str(number))
        paths.add(str(folder / "file"))
    return paths


@pytest.mark.parametrize("at_once", [1, 16])
def test_every_file_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(listing, "FOLDERS_AT_ONCE", at_once)
    paths = _tree(tmp_path, 500)
    (tmp_path / "to a folder").symlink_to(tmp_path / "folder-0")
    (tmp_path / "to a file").symlink_to(tmp_path / "folder-0" / "file")
    os.mkfifo(tmp_path / "fifo")
    assert sorted(path for part in listed(str(tmp_path), _all) for path in part.files) == sorted(paths)


def test_the_status_of_a_file_is_asked_for_before_it_is_sorted(tmp_path: Path) -> None:
    _tree(tmp_path, 50)

    def sort(folder: str, files: Sequence[os.DirEntry[str]]) -> tuple[list[str], int]:
        for each in files:
            Path(each.path).unlink()
        return [], sum(each.stat(follow_symlinks=False).st_size > 0 for each in files)

    assert sum(part.others for part in listed(str(tmp_path), sort)) == 50


def test_a_caller_that_stops_early_leaves_no_thread(tmp_path: Path) -> None:
    _tree(tmp_path, 300)
    before = threading.active_count()
    parts = listed(str(tmp_path), _all)
    next(parts)
    parts.close()
    assert threading.active_count() == before


def test_a_sort_that_fails_fails_the_listing(tmp_path: Path) -> None:
    def sort(folder: str, files: Sequence[os.DirEntry[str]]) -> tuple[list[str], int]:
        raise RuntimeError(folder)

    with pytest.raises(RuntimeError, match=str(tmp_path)):
        list(listed(str(tmp_path), sort))


def test_what_cannot_be_listed_is_said_with_its_path_and_hides_nothing_else(tmp_path: Path) -> None:
    paths = _tree(tmp_path, 3)
    (tmp_path / "plain").touch()
    device = os.lstat(tmp_path).st_dev
    found = listing._list([str(tmp_path / name) for name in ("gone", "plain", "folder-0")], device, _all)
    assert found.troubles == [(str(tmp_path / "plain"), "Not a directory")], "what went while the machine ran is none"
    assert set(found.files) == paths


def test_another_file_system_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FOLDERS_AT_ONCE", 1)
    device = os.lstat("/").st_dev
    folders = listing._list(["/"], device, _all).folders
    assert "/proc" not in folders
    assert all(os.lstat(path).st_dev == device for path in folders)
