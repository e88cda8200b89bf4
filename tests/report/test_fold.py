"""The report of a run: made from whatever events there are."""

from __future__ import annotations

import pytest

from imagepipe.engine import events as ev
from imagepipe.engine.journal import State
from imagepipe.report.fold import FIRST_LINES, LAST_LINES, LONGEST_LINE, MOST_CHARACTERS, clean, report_of
from imagepipe.report.model import StageReport
from tests.report.runs import (
    BEGINNING,
    CLAIMS,
    FAILED,
    PLANNED,
    SUCCEEDED,
    at,
    claim,
    failed,
    journal,
    reported,
    succeeded,
)


def _stage(events: list[ev.AnyEvent], name: str) -> StageReport:
    return next(stage for stage in reported(events).stages if stage.name == name)


def test_a_failed_run_has_its_cause_its_stages_and_the_resources_that_are_left() -> None:
    report = failed()
    assert (report.outcome, report.seconds, report.specs) == ("failed", 18.0, ("web",))
    [cause] = report.failures
    assert (cause.name, cause.step, cause.region, cause.code) == ("step-1", "step-1", "us-east-1", "100")
    assert (cause.start, cause.seconds, cause.hint) == (11.0, 4.0, "run apt-get update")
    assert [(stage.name, stage.status) for stage in report.stages] == [
        *(("key", "succeeded"), ("source", "succeeded"), ("launch", "succeeded"), ("step-1", "failed")),
        *(("capture", "not run"), ("test-1", "not run"), ("test-2", "not run"), ("keep", "not run")),
    ]
    assert [(each.kind, each.state, each.created, each.deleted) for each in report.resources] == [
        ("key-pair", "still held", 0.4, None),
        ("instance", "deleted", 2.0, 17.0),
    ]
    assert report.held == ("key-pair key-1 in us-east-1 (denied)",)
    assert report.next_command == "imagepipe clean 7f3a91c2"


def test_the_critical_path_is_the_longest_chain_of_stages() -> None:
    assert succeeded().critical_path == ("source", "launch", "step-1", "capture", "test-2", "keep")
    assert succeeded().next_command == ""


def test_a_run_in_progress_and_one_that_died_differ_in_their_unfinished_stages() -> None:
    running = reported(BEGINNING, None, is_alive=True)
    died = reported(BEGINNING, None)
    assert (running.outcome, running.stages[3].status) == ("running", "running")
    assert (died.outcome, died.stages[3].status) == ("died", "interrupted")
    assert died.next_command == "imagepipe resume 7f3a91c2"
    assert died.critical_path == ("source", "launch", "step-1")
    assert (died.stages[3].seconds, died.elapsed(died.stages[3]), died.elapsed(died.stages[4])) == (None, 2.0, None)


def test_a_run_without_events_has_the_outcome_of_its_journal() -> None:
    assert (reported([]).outcome, reported([], None).outcome) == ("failed", "died")
    assert reported([]).specs == ("web",)
    assert reported([]).started.year == 2026


def test_a_run_of_an_old_version_has_no_graph() -> None:
    report = reported([event for event in SUCCEEDED if not isinstance(event, ev.StagePlanned)], "succeeded")
    assert not report.has_graph
    assert (report.critical_path, report.tests) == ((), [])
    assert [stage.title for stage in report.stages][:2] == ["make a key pair", "find the source image"]
    assert {stage.spec for stage in report.stages} == {"web"}


def test_a_stage_that_ran_again_after_a_resume_has_its_last_result_and_all_its_lines() -> None:
    again: list[ev.AnyEvent] = [
        *FAILED,
        ev.RunStarted(*at(100), ("web",)),
        *PLANNED,
        ev.StageStarted(*at(101), "step-1", "packages"),
        ev.Line(*at(102), "step-1", "out", "better"),
        ev.StageFinished(*at(103), "step-1", 2.0),
    ]
    stage = _stage(again, "step-1")
    assert (stage.status, stage.start, stage.seconds, stage.error, stage.hint) == ("succeeded", 101.0, 2.0, "", "")
    assert (stage.log.count, stage.log.last[-1:] or stage.log.first[-1:]) == (36, (stage.log.lines()[-1],))
    assert reported(again, None).outcome == "died", "the second process did not finish the run"


def test_a_long_log_keeps_its_beginning_and_its_end() -> None:
    lines: list[ev.AnyEvent] = [ev.Line(*at(1), "step-1", "out", f"line {number}") for number in range(20_000)]
    log = _stage([*BEGINNING[:9], *lines], "step-1").log
    assert (log.count, log.left_out) == (20_000, 20_000 - FIRST_LINES - LAST_LINES)
    texts = [line.text for line in log.lines()]
    assert (texts[0], texts[-1]) == ("line 0", "line 19999")
    assert texts[FIRST_LINES] == "… 15000 lines are left out of this report …"


def test_a_log_of_long_lines_is_bounded_too() -> None:
    lines: list[ev.AnyEvent] = [ev.Line(*at(1), "step-1", "out", "x" * 100_000) for _ in range(3_000)]
    log = _stage([*BEGINNING[:9], *lines], "step-1").log
    kept = sum(len(line.text) for line in log.lines())
    assert kept < MOST_CHARACTERS + (FIRST_LINES + 2) * (LONGEST_LINE + 100)
    assert log.lines()[0].text.endswith("x … (98000 more characters)")
    assert log.count == 3_000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("bell \x07 back \x08", "bell \ufffd back \ufffd"),
        ("a\tb\r\n", "a\tb"),
        ("half\rwhole", "half\ufffdwhole"),
        ("\u202eleft", "\ufffdleft"),
        ("ünïcode ✓", "ünïcode ✓"),
    ],
)
def test_a_line_is_shown_without_control_characters(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_the_end_of_a_log_is_left_out_where_the_error_has_it() -> None:
    last = ev.Line(*at(14), "step-1", "out", "no space left")
    error = "exit code 1\n  its last output:\n    no space left"
    events: list[ev.AnyEvent] = [*BEGINNING, last, ev.StageFailed(*at(15), "step-1", 4.0, error)]
    assert _stage(events, "step-1").last_lines() == []
    assert len(_stage(FAILED, "step-1").last_lines()) == 20


def test_a_changed_file_whose_edges_form_a_circle_is_still_reported() -> None:
    events: list[ev.AnyEvent] = [
        ev.StagePlanned(*at(0), "a", "a", "web", needs=("b",)),
        ev.StagePlanned(*at(0), "b", "b", "web", needs=("a",)),
        ev.StageFinished(*at(1), "a", 1.0),
        ev.StageFinished(*at(1), "b", 1.0),
    ]
    assert set(reported(events).critical_path) <= {"a", "b"}


def test_a_graph_of_specs_has_an_edge_where_a_stage_needs_one_of_another_spec() -> None:
    events: list[ev.AnyEvent] = [
        ev.StagePlanned(*at(0), "base/keep", "keep", "base"),
        ev.StagePlanned(*at(0), "web/source", "find", "web", needs=("base/keep",)),
        ev.StageFinished(*at(2), "base/keep", 2.0),
    ]
    drawing = reported(events).spec_drawing()
    assert {name: list(drawing.needs_of(name)) for name in drawing.nodes} == {"base": [], "web": ["base"]}
    assert (drawing.nodes["base"].duration(), drawing.nodes["web"].duration()) == ("2.0 s", "not run")


def test_a_claim_without_an_id_is_named_by_its_token_while_it_may_exist() -> None:
    claims = (claim("instance", None, State.INTENDED), claim("instance", None, State.RELEASED), CLAIMS[2])
    report = report_of([], journal(None, *claims))
    assert [(each.id, each.state) for each in report.resources] == [("7f3a91c2-c1", "still held"), ("ami-2", "kept")]
