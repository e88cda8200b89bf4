"""The gateway's memory: what is put is there, on disk too, or nothing is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagepipe.local.aws.state import records as records_module
from imagepipe.local.aws.state.database import Database
from imagepipe.local.aws.state.records import (
    KeyPair,
    Record,
    Setting,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "database.sqlite")
    yield database
    database.close()


def setting(name: str, value: str = "") -> Setting:
    return Setting(id=name, account="", region="", value=value)


def reopened(tmp_path: Path) -> dict[str, str]:
    """What another process would read."""
    other = Database(tmp_path / "database.sqlite")
    try:
        return {row.id: row.value for row in other.settings}
    finally:
        other.close()


def test_a_change_is_on_disk_when_it_ends(database: Database, tmp_path: Path) -> None:
    with database.change():
        database.put(setting("a", "1"))
        database.put(setting("b", "1"))
        database.put(setting("a", "2"))
        assert reopened(tmp_path) == {}
    assert reopened(tmp_path) == {"a": "2", "b": "1"}
    with database.change():
        database.remove(database.settings["b"])
    assert reopened(tmp_path) == {"a": "2"}


def test_a_change_that_raises_changes_nothing_and_nothing_follows(database: Database, tmp_path: Path) -> None:
    followed: list[str] = []
    with database.change():
        database.put(setting("kept", "1"))

    def refuse() -> None:
        with database.change():
            database.put(setting("kept", "2"))
            database.put(setting("new", "2"))
            database.later(lambda: followed.append("followed"))
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        refuse()
    assert {row.id: row.value for row in database.settings} == reopened(tmp_path) == {"kept": "1"}
    with database.change():
        database.put(setting("next"))
    assert followed == []


def test_work_that_follows_a_change_runs_once_it_is_on_disk(database: Database, tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []
    with database.change():
        database.put(setting("outer"))
        with database.change():
            database.put(setting("inner"))
            database.later(lambda: seen.append(reopened(tmp_path)))
        assert seen == []
    assert seen == [{"outer": "", "inner": ""}]


def test_every_kind_of_record_has_a_table(database: Database) -> None:
    key = KeyPair(
        id="key-1",
        account="1",
        region="r",
        name="n",
        type="rsa",
        public_key="k",
        fingerprint="f",
        created=datetime.now(UTC),
    )
    with database.change():
        database.put(key)
    assert list(database.key_pairs) == database.key_pairs.owned("1", "r") == [key]
    kinds = [kind for kind in vars(records_module).values() if isinstance(kind, type) and issubclass(kind, Record)]
    described = {kind.__name__ for kind in kinds if not kind.__subclasses__()}
    assert described == {kind.__name__ for kind in database._tables}


def seen_elsewhere(look: Callable[[], object]) -> object:
    """The same as another thread sees it."""
    with ThreadPoolExecutor(1) as other:
        return other.submit(look).result(10)


def test_another_thread_sees_a_change_once_it_is_made_and_not_before(database: Database) -> None:
    def looks() -> tuple[object, ...]:
        rows = database.settings
        by_id = {name: rows[name].value if rows.get(name) else None for name in ("kept", "gone", "new")}
        return by_id, [row.id for row in rows], len(rows), [row.id for row in rows.owned("", "")]

    with database.change():
        for name in ("kept", "gone"):
            database.put(setting(name, "1"))
    before = looks()
    with database.change():
        with database.change():
            database.put(setting("kept", "2"))
        database.remove(database.settings["gone"])
        database.put(setting("new", "2"))
        assert looks() == ({"kept": "2", "gone": None, "new": "2"}, ["kept", "new"], 2, ["kept", "new"])
        assert seen_elsewhere(looks) == before
    assert (
        seen_elsewhere(looks)
        == looks()
        == ({"kept": "2", "gone": None, "new": "2"}, ["kept", "new"], 2, ["kept", "new"])
    )


def test_a_change_that_cannot_be_written_is_never_seen(database: Database, tmp_path: Path) -> None:
    with database.change():
        database.put(setting("kept", "1"))

    class Unwritable:
        """A value that JSON does not have."""

    def change() -> None:
        with database.change():
            database.put(setting("kept", "2"))
            database.put(Setting(id="bad", account="", region="", value=Unwritable()))  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        change()
    assert {row.id: row.value for row in database.settings} == reopened(tmp_path) == {"kept": "1"}


def test_work_that_follows_is_done_even_if_other_work_fails(database: Database, tmp_path: Path) -> None:
    followed: list[str] = []

    def fails() -> None:
        raise RuntimeError("cannot start")

    def change() -> None:
        with database.change():
            database.put(setting("made"))
            database.later(fails)
            database.later(lambda: followed.append("second"))

    with pytest.raises(RuntimeError, match="cannot start"):
        change()
    assert followed == ["second"]
    assert list(reopened(tmp_path)) == ["made"]


def test_blobs_are_written_beside_a_change_and_not_with_it(database: Database) -> None:
    database.write_blobs({"old": b"1", "gone": b"1"})
    with database.change():
        database.put(setting("a"))
        with ThreadPoolExecutor(1) as other:  # who holds another lock, and would wait here for ever
            other.submit(database.write_blobs, {"new": b"2", "gone": None}).result(10)
    assert database.blobs() == [("new", b"2"), ("old", b"1")]
    with pytest.raises(sqlite3.Error):
        database.write_blobs({"another": b"3", "bad": object()})  # type: ignore[dict-item]
    assert database.blobs() == [("new", b"2"), ("old", b"1")]
