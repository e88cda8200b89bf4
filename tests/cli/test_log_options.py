from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pytest

from imagepipe.cli import streams
from imagepipe.cli.log_options import LogOptions, log_sinks
from imagepipe.engine import events as ev
from imagepipe.errors import UsageError

AT = datetime(2026, 11, 23, tzinfo=UTC)
EVENTS = (
    ev.StageStarted(AT, "r", "step-1", "install"),
    ev.Line(AT, "r", "step-1", "out", "a line"),
    ev.Held(AT, "r", "instance", "us-east-1", "i-1"),
    ev.StageFinished(AT, "r", "step-1", 1.0),
)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITLAB_CI", "CI", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def _printed(options: LogOptions, out: io.StringIO) -> str:
    with log_sinks(options, out) as sinks:
        for event in EVENTS:
            for sink in sinks:
                sink(event)
    return out.getvalue()


def test_without_a_terminal_the_log_is_plain_lines() -> None:
    printed = _printed(LogOptions(), io.StringIO())
    assert printed.splitlines()[1] == "    0.0s  #1  step-1          | a line"
    assert "\x1b" not in printed


def test_a_quiet_run_prints_no_log() -> None:
    assert _printed(LogOptions(is_quiet=True), io.StringIO()) == ""


def test_a_log_file_has_everything_though_the_run_is_quiet(tmp_path: Path) -> None:
    file = tmp_path / "build.log"
    _printed(LogOptions(is_quiet=True, log_file=file), io.StringIO())
    assert "| a line" in file.read_text()
    assert "instance i-1 in us-east-1" in file.read_text()


def test_a_log_file_that_cannot_be_opened_is_an_error_before_the_run(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"opening the log file .*: No such file"),
        log_sinks(LogOptions(log_file=tmp_path / "absent/build.log"), io.StringIO()),
    ):
        pass


@pytest.mark.parametrize(("name", "mark"), [("GITHUB_ACTIONS", "::group::step-1"), ("GITLAB_CI", "section_start:")])
def test_a_ci_system_gets_folded_parts(monkeypatch: pytest.MonkeyPatch, name: str, mark: str) -> None:
    monkeypatch.setenv(name, "true")
    assert mark in _printed(LogOptions(), io.StringIO())


def test_a_terminal_shows_what_runs_now_and_speaks_for_signals() -> None:
    out = _Terminal()
    with log_sinks(LogOptions(), out) as (live,):
        live(EVENTS[0])
        assert streams.speaker is not None
        streams.speaker("SIGINT: stopping")
    assert "SIGINT: stopping" in out.getvalue()
    assert streams.speaker is None


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
def test_a_terminal_that_cannot_be_redrawn_gets_lines(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with log_sinks(LogOptions(), _Terminal()):
        assert streams.speaker is None
