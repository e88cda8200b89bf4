"""Both stores keep the same promises: runs in local files, and runs in a bucket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagepipe.clock import SystemClock
from imagepipe.engine import events as ev
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Finished, Journal, Lifetime, State, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import ImagepipeError, UsageError
from tests.state.shared import RUN, Machine

CLOCK = SystemClock()
AT = datetime(2026, 11, 23, 3, tzinfo=UTC)


@pytest.fixture(params=["files", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> JournalStore:
    if request.param == "files":
        return FileStore(tmp_path / "runs")
    here: Machine = request.getfixturevalue("here")
    return here.store


@pytest.fixture
def journal(store: JournalStore) -> Iterator[Journal]:
    journal = Journal.create(store, RUN, CLOCK)
    yield journal
    journal.close()


def test_a_journal_is_read_as_it_was_written(journal: Journal, store: JournalStore) -> None:
    instance = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch", details={"a": "b"})
    journal.bind(instance, "i-1")
    key = journal.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key")
    journal.release(journal.bind(key, "key-1"))
    journal.note("output", stage="launch", fingerprint="f1", value={"id": "caf\udce9"})
    journal.note("finished", outcome="failed", held=[])
    journal.close()

    past = read(store, RUN.id)

    assert past.run == RUN
    assert past.claims == journal.claims()
    assert [claim.state for claim in past.claims] == [State.BOUND, State.RELEASED]
    assert past.outputs == {"launch": Finished("f1", {"id": "caf\udce9"})}
    assert past.outcome == "failed"


def test_a_record_is_stored_before_the_call_that_it_announces(journal: Journal, store: JournalStore) -> None:
    claim = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    assert read(store, RUN.id).open_claims() == [claim]


def test_a_run_in_progress_cannot_be_opened_and_an_ended_one_can(journal: Journal, store: JournalStore) -> None:
    assert read(store, RUN.id).is_alive
    with pytest.raises(UsageError, match="in progress"):
        Journal.reopen(store, RUN.id, CLOCK)
    with pytest.raises(UsageError, match="in progress"):
        store.check_free(RUN.id)
    journal.close()
    assert not read(store, RUN.id).is_alive
    store.check_free(RUN.id)
    again = Journal.reopen(store, RUN.id, CLOCK)
    assert read(store, RUN.id).is_alive
    again.close()


def test_a_later_process_adopts_open_claims_and_goes_on_in_the_same_journal(
    journal: Journal, store: JournalStore
) -> None:
    claim = journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    journal.close()
    again = Journal.reopen(store, RUN.id, CLOCK)
    adopted = again.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    again.release(adopted)
    again.close()
    assert adopted == claim
    past = read(store, RUN.id)
    assert (past.open_claims(), len(past.claims)) == ([], 1)


def test_events_of_several_processes_are_in_order(journal: Journal, store: JournalStore) -> None:
    def line(number: int) -> ev.Line:
        return ev.Line(AT, RUN.id, "step-1", "out", f"line {number} ünïcode")

    assert list(store.events(RUN.id)) == []
    with journal.event_sink() as sink:
        for number in range(50):
            sink(line(number))
        sink(ev.StageFinished(AT, RUN.id, "step-1", 1.0))
        sink(line(50))
    with journal.event_sink() as sink:
        sink(line(51))
    shown = list(store.events(RUN.id))
    assert [each for each in shown if isinstance(each, ev.Line)] == [line(number) for number in range(52)]
    assert isinstance(shown[50], ev.StageFinished)


def test_a_reader_yields_each_event_once_while_the_run_goes_on(journal: Journal, store: JournalStore) -> None:
    reader = store.event_reader(RUN.id)
    assert list(reader.new()) == []
    for number in range(2):
        with journal.event_sink() as sink:
            sink(ev.Line(AT, RUN.id, "step-1", "out", f"line {number}"))
        assert [each.text for each in reader.new() if isinstance(each, ev.Line)] == [f"line {number}"]
    assert list(reader.new()) == []


def test_documents_are_kept_and_replaced(journal: Journal, store: JournalStore) -> None:
    assert store.document(RUN.id, "inputs/web.json") is None
    journal.put("inputs/web.json", b"1")
    journal.put("inputs/web.json", b"2")
    store.put(RUN.id, "closing.txt", b"done\n")
    assert store.document(RUN.id, "inputs/web.json") == b"2"
    assert store.document(RUN.id, "closing.txt") == b"done\n"


def test_runs_are_listed_and_one_that_does_not_exist_is_an_error(journal: Journal, store: JournalStore) -> None:
    other = Journal.create(store, replace(RUN, id="aaaa"), CLOCK)
    other.close()
    assert sorted(store.runs()) == ["7f3a", "aaaa"]
    assert abs((store.changed("aaaa") - CLOCK.now()).total_seconds()) < 60
    with pytest.raises(ImagepipeError):
        read(store, "none")


def test_the_local_folder_of_a_run_is_its_owners_alone(journal: Journal, store: JournalStore) -> None:
    assert journal.folder == store.folder(RUN.id)
    assert journal.folder.stat().st_mode & 0o777 == 0o700
