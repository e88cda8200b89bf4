"""`imagepipe logs`: the log of a run, from its events alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from imagepipe.cli.logs import logs
from imagepipe.clock import SystemClock
from imagepipe.engine import events as ev
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Journal, RunRecord
from imagepipe.errors import UsageError

RUN = "7f3a91c2"
BEGAN = datetime(2026, 11, 23, 3, tzinfo=UTC)
FOLLOW = [sys.executable, "-m", "imagepipe.cli.main", "logs", RUN, "-f"]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    """The journal of a run in progress."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    store = FileStore(tmp_path / "imagepipe" / "runs")
    journal = Journal.create(
        store, RunRecord(RUN, "2026-11-23T03:00:00Z", ("web",), {}, {}, {"files": ["web.yaml"]}), SystemClock()
    )
    yield journal
    journal.close()


def _emit(journal: Journal, *events: ev.AnyEvent) -> None:
    with journal.event_sink() as sink:
        for event in events:
            sink(event)


def _line(stage: str, text: str, seconds: float = 1) -> ev.Line:
    return ev.Line(BEGAN + timedelta(seconds=seconds), RUN, stage, "out", text)


@pytest.fixture
def two_stages(journal: Journal) -> None:
    _emit(
        journal,
        ev.RunStarted(BEGAN, RUN, ("web",)),
        _line("web/launch", "first", 1),
        ev.Line(BEGAN, RUN, "web/launch", "say", "of imagepipe"),
        _line("web/step-1", "second", 65),
        ev.Span(BEGAN, RUN, "web/step-1", "command", 1.0),
    )


@pytest.mark.usefixtures("two_stages")
def test_a_log_has_the_lines_of_all_stages_with_their_times() -> None:
    done = CliRunner().invoke(logs, [RUN])
    assert done.exit_code == 0
    assert [line.split()[-1] for line in done.output.splitlines()] == ["web", "first", "imagepipe", "second"]
    assert "   65.0s      web/step-1      | second" in done.output


@pytest.mark.usefixtures("two_stages")
@pytest.mark.parametrize("word", ["launch", "web/launch", "web/lau*", "l?unch"])
def test_a_stage_is_named_whole_by_its_last_part_or_by_a_pattern(word: str) -> None:
    done = CliRunner().invoke(logs, [RUN, word, "--raw"])
    assert done.output == "first\n"


@pytest.mark.usefixtures("two_stages")
def test_the_last_lines_are_the_last_of_those_that_were_asked_for() -> None:
    assert CliRunner().invoke(logs, [RUN, "-n", "1"]).output == "   65.0s      web/step-1      | second\n"
    assert CliRunner().invoke(logs, [RUN, "launch", "-n", "1"]).output == "    0.0s      web/launch      of imagepipe\n"
    assert CliRunner().invoke(logs, [RUN, "-n", "0"]).output == ""


@pytest.mark.usefixtures("two_stages")
def test_a_stage_that_did_not_begin_is_named_with_those_that_did() -> None:
    done = CliRunner().invoke(logs, [RUN, "lunch"])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception) == f"run {RUN} has not begun a stage 'lunch'; did you mean 'launch'?"
    assert done.exception.hint == "its stages: web/launch, web/step-1"


def test_only_a_run_that_was_resumed_says_so(journal: Journal) -> None:
    first = ev.RunStarted(BEGAN, RUN, ("web",), "process 1 on ci")
    _emit(journal, first)
    assert CliRunner().invoke(logs, [RUN]).output.endswith(f"{RUN}: web\n")
    _emit(journal, replace(first, time=BEGAN + timedelta(seconds=9), process="process 2 on ci"))
    for words in ([RUN], [RUN, "-n", "2"]):
        lines = CliRunner().invoke(logs, words).output.splitlines()
        assert [line.partition(f"{RUN}: ")[2] for line in lines] == ["web", "web, resumed by process 2 on ci"]


def test_a_log_is_followed_until_the_run_ends(journal: Journal) -> None:
    with subprocess.Popen(FOLLOW, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        _emit(journal, _line("launch", "while it runs"))
        assert process.stdout.readline() == "    0.0s      launch          | while it runs\n"
        _emit(journal, _line("launch", "the last line", 2))
        journal.note("finished", outcome="succeeded", held=[])
        journal.close()
        assert process.stdout.read() == "    1.0s      launch          | the last line\n"
    assert process.returncode == 0


def test_a_followed_run_whose_process_died_ends_with_the_next_command(journal: Journal) -> None:
    _emit(journal, _line("launch", "begun"))
    journal.close()
    done = subprocess.run(FOLLOW, capture_output=True, text=True, check=False)
    assert done.stdout == "    0.0s      launch          | begun\n"
    assert f"imagepipe resume {RUN}" in done.stderr
    assert done.returncode == 0
