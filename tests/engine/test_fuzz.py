"""Whatever the files of a run hold: a run, its events, or an ImagepipeError that names file and line."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from imagepipe.cli.main import main
from imagepipe.clock import SystemClock
from imagepipe.engine import events as ev
from imagepipe.engine.file_store import JOURNAL as FILE_NAME
from imagepipe.engine.journal import Lifetime, RunRecord
from imagepipe.errors import ImagepipeError
from imagepipe.report.console import ConsoleReport
from tests import run_folders
from tests.engine.test_events import SAMPLES
from tests.fuzzing import BOUNDED, read_or_refused

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TYPES = ["run", "intended", "bound", "released", "kept", "output", "begun", "dropped", "resumed", "finished", "x"]
FIELDS = [
    *["version", "id", "started", "specs", "build", "cloud", "given", "claim", "kind", "region", "token", "lifetime"],
    *["stage", "stages", "details", "fingerprint", "value", "outcome"],
]
RECORDS = st.builds(
    lambda kind, values: {"type": kind, **values},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(FIELDS), JSON | st.sampled_from(["c1", "run", "product", 1]), max_size=10),
)


def _journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of a journal with one of everything."""
    journal = run_folders.create(
        folder, RunRecord(folder.name, "2026-11-25T03:00:00Z", ("web",), {"id": "r1"}, {}), SystemClock()
    )
    instance = journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    image = journal.intend("image", "us-east-1", lifetime=Lifetime.PRODUCT, stage="capture", details={"name": "web"})
    journal.note("begun", stage="step-1")
    journal.note("output", stage="launch", fingerprint="f", value={"id": "i-1"})
    journal.note("dropped", stages=["launch"])
    journal.release(instance)
    journal.keep(journal.bind(image, "ami-1"))
    journal.note("finished", outcome="succeeded", held=[])
    journal.close()
    return [json.loads(line) for line in (folder / FILE_NAME).read_text().splitlines()]


def _look(folder: Path) -> None:
    """The journal is read, or refused; and so it is by the commands that show it."""
    past = read_or_refused(lambda: run_folders.read(folder), ImagepipeError, str(folder))
    if past is None:
        return
    for claim in past.claims:
        assert str(claim)
    env = {"XDG_STATE_HOME": str(folder.parents[2])}
    result = CliRunner().invoke(main, ["runs"], env=env, standalone_mode=False)
    assert result.exception is None, result.exception


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "imagepipe" / "runs" / "r1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAME).unlink(missing_ok=True)
    return folder


@BOUNDED
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_a_journal_or_refused(tmp_path: Path, raw: bytes) -> None:
    folder = _folder(tmp_path)
    (folder / FILE_NAME).write_bytes(raw)
    _look(folder)


@BOUNDED
@given(records=st.lists(RECORDS, max_size=6))
def test_any_records_are_a_journal_or_refused(tmp_path: Path, records: list[Any]) -> None:
    folder = _folder(tmp_path)
    lines = [*_journal(folder)[:2], *records]
    (folder / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    _look(folder)


@BOUNDED
@given(data=st.data())
def test_a_journal_with_one_value_changed_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    folder = _folder(tmp_path)
    lines = _journal(folder)
    line = data.draw(st.sampled_from(lines))
    line[data.draw(st.sampled_from(sorted(line)))] = data.draw(JSON)
    (folder / FILE_NAME).write_text("".join(json.dumps(each) + "\n" for each in lines))
    _look(folder)


@BOUNDED
@given(data=st.data())
def test_a_journal_that_is_cut_anywhere_is_what_came_before(tmp_path: Path, data: st.DataObject) -> None:
    folder = _folder(tmp_path)
    _journal(folder)
    whole = (folder / FILE_NAME).read_bytes()
    at = data.draw(st.integers(whole.index(b"\n") + 1, len(whole)))
    (folder / FILE_NAME).write_bytes(whole[:at])
    past = run_folders.read(folder)
    assert len(past.claims) == whole[: whole.rfind(b"\n", 0, at) + 1].count(b'"intended"')


def _show(path: Path) -> None:
    """The events are read, and can be shown, or are refused."""
    report = ConsoleReport(StringIO())
    for event in read_or_refused(lambda: list(ev.read_events(path)), ImagepipeError, str(path)) or ():
        report(event)


@BOUNDED
@given(raw=st.binary(max_size=200))
def test_any_bytes_are_events_or_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / ev.FILE_NAME
    path.write_bytes(raw)
    _show(path)


@BOUNDED
@given(data=st.data())
def test_events_with_one_value_changed_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / ev.FILE_NAME
    lines = [ev.to_json(event) for event in SAMPLES]
    line = data.draw(st.sampled_from(lines))
    dates = st.sampled_from(["2026-11-25", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "\ud800"])
    line[data.draw(st.sampled_from(sorted(line)))] = data.draw(JSON | dates)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    _show(path)


def test_what_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    deep = '{"type": "run", "version": 1, "given": ' + '{"a":' * 200_000 + "1" + "}" * 200_001 + "\n"
    (folder / FILE_NAME).write_text(deep)
    _look(folder)
    (folder / ev.FILE_NAME).write_text(deep)
    _show(folder / ev.FILE_NAME)


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / ev.FILE_NAME
    with path.open("wb") as file:
        file.truncate(8 << 30)  # a hole: nothing of it is on the disk
    _show(path)
    folder = _folder(tmp_path)
    path.rename(folder / FILE_NAME)
    _look(folder)
