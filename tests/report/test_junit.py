from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from imagepipe.engine import events as ev
from imagepipe.report.junit import JUnitReport, Suite, junit_of, write_error
from tests.report import runs

START = datetime(2026, 11, 23, tzinfo=UTC)
CASES = (("test-boot", "boot the new image"), ("test-1", "the page"), ("test-2", "the port"))


def _written(folder: Path, *events: ev.AnyEvent, suites: tuple[Suite, ...] = (Suite("web", CASES),)) -> ET.Element:
    path = folder / "tests.xml"
    report = JUnitReport(path, suites)
    for event in events:
        report(event)
    assert not path.exists(), "it is written when the run has finished"
    report(ev.RunFinished(START, "r", "failed", 1.0))
    return ET.parse(path).getroot()


def test_each_test_is_a_case_with_its_time_and_what_it_wrote(tmp_path: Path) -> None:
    [suite] = _written(
        tmp_path,
        ev.StageFinished(START, "r", "test-boot", 2.5),
        ev.Line(START, "r", "test-1", "out", "hello \x1b[1m & <b>"),
        ev.StageFinished(START, "r", "test-1", 0.25),
        ev.StageFinished(START, "r", "test-2", 0.25),
    )
    assert (suite.get("name"), suite.get("tests"), suite.get("failures"), suite.get("time")) == (
        "web",
        "4",
        "0",
        "3.000",
    )
    assert [case.get("name") for case in suite] == ["build", "boot the new image", "the page", "the port"]
    assert suite[2].findtext("system-out") == "hello \N{REPLACEMENT CHARACTER}[1m & <b>\n"


def test_a_failed_test_says_why_and_those_after_it_say_that_they_were_not_run(tmp_path: Path) -> None:
    [suite] = _written(
        tmp_path,
        ev.StageFinished(START, "r", "test-boot", 2.5),
        ev.StageFailed(START, "r", "test-1", 0.25, "step 'the page': exit code 1\n  it said: no", "look"),
    )
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "1")
    failure = suite[2].find("failure")
    assert failure is not None
    assert failure.get("message") == "step 'the page': exit code 1"
    assert "it said: no\nhint: look" in (failure.text or "")
    skipped = suite[3].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "not run: test-1: step 'the page': exit code 1"


def test_every_failed_test_is_a_failure_of_its_own_case(tmp_path: Path) -> None:
    [suite] = _written(
        tmp_path,
        ev.StageFinished(START, "r", "test-boot", 2.5),
        ev.StageFailed(START, "r", "test-1", 0.25, "test 'the page': expected status 200, got 404"),
        ev.StageFailed(START, "r", "test-2", 30.0, "test 'the port': expected open, and it is closed"),
    )
    assert (suite.get("failures"), suite.get("skipped"), suite.get("errors")) == ("2", "0", "0")
    messages = [failure.get("message") for failure in suite.iter("failure")]
    assert messages == [
        "test 'the page': expected status 200, got 404",
        "test 'the port': expected open, and it is closed",
    ]


def test_a_failed_test_is_no_error_of_the_build_too(tmp_path: Path) -> None:
    stages = frozenset({"capture", *(stage for stage, _ in CASES)})
    [suite] = _written(
        tmp_path, ev.StageFailed(START, "r", "test-1", 1.0, "exit code 1"), suites=(Suite("web", CASES, stages),)
    )
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")


def test_a_build_that_fails_before_its_tests_is_an_error_and_skips_them(tmp_path: Path) -> None:
    failed = ev.StageFailed(START, "r", "step-3", 1.0, "exit code 1\nlast line", "look")
    [suite] = _written(tmp_path, failed, suites=(Suite("web", CASES, frozenset({"step-3", "capture"})),))
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "3")
    error = suite[0].find("error")
    assert error is not None
    assert error.get("message") == "step-3: exit code 1"
    assert error.text == "step-3: exit code 1\nlast line\nhint: look"
    assert {skipped.get("message") for skipped in suite.iter("skipped")} == {"not run: step-3: exit code 1"}


def test_a_cancelled_build_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    JUnitReport(path, [Suite("web", (), frozenset({"launch"}))])(ev.RunFinished(START, "r", "cancelled", 1.0))
    [error] = ET.parse(path).getroot().iter("error")
    assert error.get("message") == "not built: the run was cancelled"


def test_a_spec_that_is_stopped_by_the_failure_of_another_is_an_error_too(tmp_path: Path) -> None:
    suites = (
        Suite("web", (), frozenset({"web/launch", "web/keep"})),
        Suite("app", (("app/test-1", "the page"),), frozenset({"app/launch", "app/test-1"})),
        Suite("db", (), frozenset({"db/launch"})),
    )
    root = _written(
        tmp_path,
        ev.StageFinished(START, "r", "db/launch", 1.0),
        ev.StageFailed(START, "r", "web/launch", 1.0, "no capacity"),
        suites=suites,
    )
    assert [(suite.get("name"), suite.get("errors")) for suite in root] == [("web", "1"), ("app", "1"), ("db", "0")]
    assert [error.get("message") for error in root.iter("error")] == [
        "web/launch: no capacity",
        "not built: web/launch: no capacity",
    ]


def test_a_spec_without_tests_has_a_case_for_its_build(tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    report = JUnitReport(path, [Suite("web", (), frozenset({"launch"}))])
    report(ev.StageFinished(START, "r", "launch", 1.5))
    report(ev.RunFinished(START, "r", "succeeded", 1.5))
    [suite] = ET.parse(path).getroot()
    assert [(case.get("name"), case.get("time"), len(case)) for case in suite] == [("build", "1.500", 0)]


def test_an_error_from_before_the_run_is_a_suite_of_its_own(tmp_path: Path) -> None:
    write_error(tmp_path / "tests.xml", "web.yaml:3:1: unknown key\n  3 | nme: web")
    [suite] = ET.parse(tmp_path / "tests.xml").getroot()
    assert (suite.get("name"), suite.get("tests"), suite.get("errors")) == ("imagepipe", "1", "1")


def _resumed(folder: Path, earlier: Iterable[ev.AnyEvent]) -> ET.Element:
    """The suite of a run whose first process finished a boot and a test, and whose second one did the rest."""
    path, stages = folder / "tests.xml", frozenset({"capture", *(stage for stage, _ in CASES)})
    report = JUnitReport(path, (Suite("web", CASES, stages),))
    report.resume(earlier, {"capture", "test-boot", "test-1"})
    report(ev.StageFinished(START, "r", "test-2", 1.0))
    report(ev.RunFinished(START, "r", "succeeded", 1.0))
    return ET.parse(path).getroot()[0]


def test_tests_of_the_first_process_are_cases_of_a_resumed_run(tmp_path: Path) -> None:
    suite = _resumed(
        tmp_path,
        [
            ev.StageFinished(START, "r", "test-boot", 2.5),
            ev.Line(START, "r", "test-1", "out", "hello"),
            ev.StageFinished(START, "r", "test-1", 0.5),
            ev.Line(START, "r", "test-2", "out", "cut off"),
        ],
    )
    assert (suite.get("tests"), suite.get("errors"), suite.get("skipped")) == ("4", "0", "0")
    assert suite.get("time") == "4.000"
    assert suite[2].findtext("system-out") == "hello\n"
    assert suite[3].findtext("system-out") is None


def test_events_that_cannot_be_read_cost_a_resumed_run_their_times_only(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("not json\n")
    suite = _resumed(tmp_path, ev.read_events(tmp_path / "events.jsonl"))
    assert (suite.get("errors"), suite.get("skipped"), suite.get("time")) == ("0", "0", "1.000")


def test_a_finished_run_has_the_same_cases_from_its_report() -> None:
    [suite] = ET.fromstring(junit_of(runs.succeeded()))
    assert [(case.get("name"), case.get("time"), len(case)) for case in suite] == [
        ("build", "26.500", 0),
        ("the page", "1.000", 0),
        ("the port", "3.000", 0),
    ]


def test_a_failed_run_has_its_error_and_skips_its_tests_in_its_report() -> None:
    [suite] = ET.fromstring(junit_of(runs.failed()))
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("1", "0", "2")
    error = suite[0].find("error")
    assert error is not None
    assert error.text == "step-1: step 'packages' (web.yaml:7): exit code 100\nhint: run apt-get update"


def test_a_run_that_died_or_is_in_progress_is_an_error_in_its_report() -> None:
    for is_alive, words in ((False, "not built: the run died"), (True, "not built: the run is in progress")):
        [suite] = ET.fromstring(junit_of(runs.reported(runs.BEGINNING, None, is_alive=is_alive)))
        error = suite[0].find("error")
        assert error is not None
        assert error.get("message") == words


def test_a_failed_test_is_no_error_of_the_build_in_its_report() -> None:
    events: list[ev.AnyEvent] = [*runs.PLANNED, ev.StageFailed(*runs.at(1), "test-1", 1.0, "got 404", "look")]
    [suite] = ET.fromstring(junit_of(runs.reported(events)))
    assert (suite.get("errors"), suite.get("failures"), suite.get("skipped")) == ("0", "1", "1")
    assert suite[1].findtext("failure") == "got 404\nhint: look"


def test_a_region_that_failed_alone_is_no_error_in_its_report() -> None:
    alone = runs.planned("copy-eu-west-1", "copy", is_optional=True)
    failure = ev.StageFailed(*runs.at(30), "copy-eu-west-1", 1.0, "denied")
    [suite] = ET.fromstring(junit_of(runs.reported([*runs.SUCCEEDED[:-1], alone, failure], "succeeded")))
    assert (suite.get("errors"), suite.get("failures")) == ("0", "0")
