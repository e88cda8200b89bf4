from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagepipe.clock import SystemClock
from imagepipe.engine.file_store import JOURNAL as FILE_NAME
from imagepipe.engine.journal import Finished, Journal, Lifetime, RunRecord, State
from imagepipe.errors import ImagepipeError, UsageError
from tests import run_folders

RUN = RunRecord("7f3a", "2026-11-23T03:00:00Z", ("web",), {"id": "7f3a", "timestamp": "x"}, {"local": "/store"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "7f3a"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    journal = run_folders.create(folder, RUN, SystemClock())
    yield journal
    journal.close()


def test_a_journal_says_what_was_written_into_it(journal: Journal, folder: Path) -> None:
    instance = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch", details={"a": "b"})
    journal.bind(instance, "i-1")
    key = journal.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key")
    journal.release(journal.bind(key, "key-1"))
    image = journal.intend("image", "eu-west-1", lifetime=Lifetime.PRODUCT, stage="capture")
    journal.keep(journal.bind(image, "ami-1"))
    journal.note("finished", outcome="succeeded", held=[])

    past = run_folders.read(folder)

    assert past.run == RUN
    assert past.claims == journal.claims()
    assert [claim.state for claim in past.claims] == [State.BOUND, State.RELEASED, State.KEPT]
    assert past.claims[0].details == {"a": "b"}
    assert [claim.id for claim in past.open_claims()] == ["i-1"]
    assert past.outcome == "succeeded"


def test_a_name_of_any_bytes_is_kept_as_it_is(journal: Journal, folder: Path) -> None:
    name = "caf\udce9.txt"
    journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch", details={"file": name})
    assert run_folders.read(folder).claims[0].details == {"file": name}


def test_a_claim_is_on_disk_before_the_cloud_is_asked(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("imagepipe.engine.file_store.os.fsync", lambda descriptor: synced.append(_size(folder)))
    journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    assert synced == [_size(folder)], "synced once, with the whole line in the file"


def _size(folder: Path) -> int:
    return (folder / FILE_NAME).stat().st_size


def test_tokens_differ_and_name_the_run(journal: Journal) -> None:
    tokens = [journal.intend("x", "r", lifetime=Lifetime.RUN, stage="s").token for _ in range(3)]
    assert len(set(tokens)) == 3
    assert all(token.startswith("7f3a-") for token in tokens)


def test_the_folder_and_the_journal_are_the_users_alone(journal: Journal, folder: Path) -> None:
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) & 0o077 == 0


def test_a_last_line_cut_short_is_left_out_and_the_next_does_not_run_into_it(journal: Journal, folder: Path) -> None:
    claim = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    journal.close()
    with (folder / FILE_NAME).open("a") as file:
        file.write('{"type": "bound", "claim": "c1", "id": "i-')
    assert run_folders.read(folder).claims == (claim,)
    again = run_folders.reopen(folder, SystemClock())
    again.release(claim)
    again.close()
    assert run_folders.read(folder).open_claims() == []


def test_a_run_that_goes_on_is_known_to_be_alive_and_cannot_be_reopened(journal: Journal, folder: Path) -> None:
    assert run_folders.read(folder).is_alive
    with pytest.raises(UsageError, match="in progress in another process"):
        run_folders.reopen(folder, SystemClock())
    journal.close()
    assert not run_folders.read(folder).is_alive


def test_a_journal_that_somebody_changed_is_named_with_its_line(journal: Journal, folder: Path) -> None:
    journal.close()
    with (folder / FILE_NAME).open("a") as file:
        file.write('{"type": "bound", "claim": "c9", "id": "i-1"}\n')
    with pytest.raises(ImagepipeError, match=r"journal\.jsonl, line 2, cannot be read"):
        run_folders.read(folder)


def test_a_journal_of_another_version_is_refused(journal: Journal, folder: Path) -> None:
    journal.close()
    path = folder / FILE_NAME
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "version": 99}) + "\n")
    with pytest.raises(ImagepipeError, match="another version"):
        run_folders.read(folder)


def test_an_empty_journal_is_a_run_that_held_nothing(folder: Path) -> None:
    folder.mkdir()
    (folder / FILE_NAME).touch()
    with pytest.raises(ImagepipeError, match="before it created anything"):
        run_folders.read(folder)


def test_the_lock_ends_with_the_process(folder: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from imagepipe.clock import SystemClock;"
        "from imagepipe.engine.file_store import FileStore; from imagepipe.engine.journal import Journal, RunRecord;"
        "store, run = FileStore(Path(sys.argv[1])), RunRecord(sys.argv[2], 't', (), {}, {});"
        "Journal.create(store, run, SystemClock()); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder.parent), folder.name], check=True)
    assert not run_folders.read(folder).is_alive


def test_what_a_dead_process_claimed_is_taken_up_by_the_same_stage_once(folder: Path) -> None:
    dead = run_folders.create(folder, RUN, SystemClock())
    open_claim = dead.bind(dead.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    gone = dead.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key")
    dead.release(gone)
    dead.close()
    journal = run_folders.reopen(folder, SystemClock())
    try:
        other = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="test-launch")
        again = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
        new = journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
        key = journal.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key")
        assert again == open_claim
        assert [journal.is_adopted(each) for each in (other, again, new, key)] == [False, True, False, False]
        assert len({other.token, again.token, new.token, key.token, gone.token}) == 5
    finally:
        journal.close()


def test_what_was_cleaned_up_before_its_stage_runs_again_is_not_taken_up(folder: Path) -> None:
    dead = run_folders.create(folder, RUN, SystemClock())
    dead.bind(dead.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    dead.close()
    journal = run_folders.reopen(folder, SystemClock())
    try:
        [claim] = journal.claims()
        journal.release(claim)
        assert journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch").id is None
    finally:
        journal.close()


def test_outputs_are_of_the_stages_that_finished_and_were_not_dropped_since(journal: Journal, folder: Path) -> None:
    journal.note("begun", stage="step-1")
    journal.note("output", stage="launch", fingerprint="f1", value={"id": "i-1"})
    journal.note("output", stage="step-1", fingerprint="f2", value=None)
    journal.note("begun", stage="step-2")
    past = run_folders.read(folder)
    assert past.outputs == {"launch": Finished("f1", {"id": "i-1"}), "step-1": Finished("f2", None)}
    assert past.begun == {"step-1", "step-2"}
    journal.note("finished", outcome="failed", held=[])
    journal.note("resumed", dropped=["step-1", "step-2"])
    journal.note("dropped", stages=["step-1", "step-2"])
    past = run_folders.read(folder)
    assert list(past.outputs) == ["launch"]
    assert past.begun == frozenset()
    assert past.outcome is None, "it goes on"
