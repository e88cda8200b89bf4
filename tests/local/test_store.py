"""The store: private, versioned, with keys of its own."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from imagepipe.errors import LocalCloudError
from imagepipe.local.store import FORMAT, Store, default_base_cache, default_root


def test_a_new_store_is_its_owners_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "a" / "store")
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert (store.root / "format").read_text() == f"{FORMAT}\n"


def test_a_store_opens_again_with_the_same_keys(tmp_path: Path) -> None:
    keys = Store.open(tmp_path).credentials()
    assert Store.open(tmp_path).credentials() == keys
    assert keys.access_key_id.startswith("AKIA")
    assert len(keys.access_key_id) == 20
    assert stat.S_IMODE((tmp_path / "credentials.json").stat().st_mode) == 0o600


def test_two_stores_have_different_keys(tmp_path: Path) -> None:
    assert Store.open(tmp_path / "a").credentials() != Store.open(tmp_path / "b").credentials()


def test_a_store_written_by_a_newer_version_is_refused_with_a_hint(tmp_path: Path) -> None:
    Store.open(tmp_path)
    (tmp_path / "format").write_text(f"{FORMAT + 1}\n")
    with pytest.raises(LocalCloudError, match="written by a newer imagepipe") as refused:
        Store.open(tmp_path)
    assert "upgrade imagepipe" in str(refused.value.hint)


def test_a_folder_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format").write_text("letter\n")
    with pytest.raises(LocalCloudError, match="its format file holds 'letter'"):
        Store.open(tmp_path)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalCloudError, match="opening the local cloud's store"):
        Store.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"IMAGEPIPE_LOCAL_STORE": "/s", "XDG_DATA_HOME": "/x"}, Path("/s")),
        ({"XDG_DATA_HOME": "/x"}, Path("/x/imagepipe/local")),
        ({}, Path("~/.local/share/imagepipe/local").expanduser()),
    ],
    ids=["named", "xdg", "home"],
)
def test_where_the_store_is_by_default(environ: dict[str, str], root: Path) -> None:
    assert default_root(environ) == root


def test_base_images_are_in_the_store_unless_a_cache_is_named(tmp_path: Path) -> None:
    assert default_base_cache({}) is None
    assert Store.open(tmp_path).base_cache == tmp_path / "base"
    cache = default_base_cache({"IMAGEPIPE_LOCAL_BASE_CACHE": str(tmp_path / "c")})
    assert Store.open(tmp_path, base_cache=cache).base_cache == tmp_path / "c"
