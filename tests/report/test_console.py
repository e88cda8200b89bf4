from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from imagepipe.engine import events as ev
from imagepipe.report.console import ConsoleReport

START = datetime(2026, 11, 23, tzinfo=UTC)


def _printed(*events: ev.AnyEvent) -> str:
    out = io.StringIO()
    report = ConsoleReport(out)
    for event in events:
        report(event)
    return out.getvalue()


def test_a_log_has_a_line_for_each_thing_and_no_colours_in_a_file() -> None:
    printed = _printed(
        ev.RunStarted(START, "7f3a", ("web",)),
        ev.StageStarted(START + timedelta(seconds=1), "7f3a", "launch", "launch t3.small in us-east-1"),
        ev.StageFinished(START + timedelta(seconds=2.5), "7f3a", "launch", 1.5, "i-1"),
    )
    assert printed == (
        "    0.0s      run             7f3a: web\n"
        "    1.0s  #1  launch          launch t3.small in us-east-1\n"
        "    2.5s  #1  launch          done in 1.5 s: i-1\n"
    )


def test_a_run_that_was_resumed_names_the_process_that_did_it() -> None:
    first = ev.RunStarted(START, "7f3a", ("web",), "process 812 on ci-7")
    printed = _printed(first, replace(first, process="process 4 on laptop")).splitlines()
    assert [line.split("run", 1)[1].strip() for line in printed] == [
        "7f3a: web",
        "7f3a: web, resumed by process 4 on laptop",
    ]


def test_what_a_machine_says_cannot_drive_the_terminal() -> None:
    printed = _printed(ev.Line(START, "r", "step-1", "out", "\x1b[2Jcleared\x07 [bold]not markup[/bold]"))
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "[bold]not markup[/bold]" in printed


def test_the_same_progress_again_is_no_news() -> None:
    printed = _printed(*(ev.Progress(START, "r", "s", "50 %") for _ in range(5)))
    assert printed.count("50 %") == 1


def test_a_long_line_is_not_broken() -> None:
    assert "x" * 500 in _printed(ev.Line(START, "r", "s", "out", "x" * 500))


def test_a_stream_that_wants_colours_gets_them_with_the_same_text() -> None:
    out = io.StringIO()
    ConsoleReport(out, has_colours=True)(ev.RunStarted(START, "7f3a", ("web",)))
    assert "7f3a: web" in out.getvalue()


def test_a_verbose_log_has_created_resources_and_where_the_time_went() -> None:
    events = (ev.Held(START, "r", "instance", "us-east-1", "i-1"), ev.Span(START, "r", "boot", "wait", 2.5))
    out = io.StringIO()
    report = ConsoleReport(out, is_verbose=True)
    for event in events:
        report(event)
    assert "created         instance i-1 in us-east-1" in out.getvalue()
    assert "2.5 s of it: wait" in out.getvalue()
    assert _printed(*events) == ""
