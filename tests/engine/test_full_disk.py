"""A disk that fills up while a run writes: nothing is made that is not written down, and all is cleaned up."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagepipe.clock import SystemClock
from imagepipe.engine.events import EventFile, Events, RunFinished
from imagepipe.engine.file_store import JOURNAL as FILE_NAME
from imagepipe.engine.journal import Lifetime
from imagepipe.engine.stage import Context
from imagepipe.errors import ImagepipeError
from imagepipe.masking import Masker
from tests import run_folders
from tests.engine.rig import RUN, Rig, holding


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """While inside, no file of this process grows past this size: what is over is written in part, then refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_line_that_did_not_fit_is_not_there_and_the_next_one_is_whole(tmp_path: Path) -> None:
    journal = run_folders.create(tmp_path / "r1", RUN, SystemClock())
    file = tmp_path / "r1" / FILE_NAME
    before = file.read_bytes()
    with full_at(len(before) + 10), pytest.raises(ImagepipeError, match="writing the journal") as refused:
        journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch")
    assert "XDG_STATE_HOME" in str(refused.value.hint)
    assert file.read_bytes() == before
    journal.bind(journal.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key"), "key-1")
    journal.close()
    assert [json.loads(line)["type"] for line in file.read_text().splitlines()] == ["run", "intended", "bound"]
    assert [claim.id for claim in run_folders.read(tmp_path / "r1").claims] == ["key-1"]


def test_what_is_held_is_cleaned_up_though_nothing_can_be_written_any_more(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    file = tmp_path / RUN.id / FILE_NAME
    first = rig.add("first", holding("instance"))
    made: list[str] = []

    def after_full(ctx: Context) -> None:
        ctx.intend("image", "us-east-1", lifetime=Lifetime.PRODUCT)
        made.append("image")

    def fill(ctx: Context) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    second = rig.add("second", fill, first)
    rig.add("third", after_full, second)
    with full_at(1 << 30):  # puts the limit back
        outcome = rig.execute()
    rig.journal.close()
    assert not made, "nothing is made that could not be written down"
    assert str(outcome.failures[0].error).startswith("writing the journal")
    assert rig.released == ["instance"]
    assert not outcome.held
    assert [claim.id for claim in run_folders.read(tmp_path / RUN.id).open_claims()] == ["instance-1"], (
        "clean looks for it again"
    )


def test_a_state_folder_that_cannot_be_written_is_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImagepipeError, match=r"writing the journal .*/file/r1/journal.jsonl: Not a directory"):
        run_folders.create(tmp_path / "file" / "r1", RUN, SystemClock())


@pytest.mark.filterwarnings("default")
def test_a_full_disk_under_the_events_costs_the_events_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(tmp_path)
    with EventFile(Path("/dev/full")) as file:
        rig.events = Events(RUN.id, rig.clock, Masker(), [file, rig.seen.append])
        rig.add("first", holding("instance"))
        outcome = rig.execute()
    rig.journal.close()
    assert outcome.ok
    assert rig.released == ["instance"]
    assert isinstance(rig.seen[-1], RunFinished), "the others go on"
    assert [record.getMessage() for record in caplog.records] == [
        "the run continues without its EventFile: [Errno 28] No space left on device"
    ]
