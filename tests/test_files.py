"""A file is written whole, and for its owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from imagepipe.files import write_atomically


@pytest.mark.parametrize("content", ["words", b"words"])
def test_a_file_is_replaced_and_only_its_owner_can_read_it(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "file"
    path.write_text("older, and longer")
    path.chmod(0o644)
    write_atomically(path, content)
    assert path.read_bytes() == b"words"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_leaves_nothing_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(folder, "words")
    assert list(tmp_path.iterdir()) == [folder]
