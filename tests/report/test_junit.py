from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path

from imagepipe.engine import events as ev
from imagepipe.report.junit import JUnitReport, Suite

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
        "3",
        "0",
        "3.000",
    )
    assert [case.get("name") for case in suite] == ["boot the new image", "the page", "the port"]
    assert suite[1].findtext("system-out") == "hello \N{REPLACEMENT CHARACTER}[1m & <b>\n"


def test_a_failed_test_says_why_and_those_after_it_say_that_they_were_not_run(tmp_path: Path) -> None:
    [suite] = _written(
        tmp_path,
        ev.StageFinished(START, "r", "test-boot", 2.5),
        ev.StageFailed(START, "r", "test-1", 0.25, "step 'the page': exit code 1\n  it said: no", "look"),
    )
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "1")
    failure = suite[1].find("failure")
    assert failure is not None
    assert failure.get("message") == "step 'the page': exit code 1"
    assert "it said: no\nhint: look" in (failure.text or "")
    skipped = suite[2].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "not run: test-1: step 'the page': exit code 1"


def test_a_build_that_fails_before_its_tests_skips_them_and_says_why(tmp_path: Path) -> None:
    [suite] = _written(tmp_path, ev.StageFailed(START, "r", "step-3", 1.0, "exit code 1"))
    assert suite.get("skipped") == "3"
    assert suite.get("failures") == "0"
    assert {skipped.get("message") for skipped in suite.iter("skipped")} == {"not run: step-3: exit code 1"}


def test_a_spec_without_tests_has_no_suite(tmp_path: Path) -> None:
    root = _written(tmp_path, suites=(Suite("web", ()), Suite("app", (("app/test-boot", "boot"),))))
    assert [suite.get("name") for suite in root] == ["app"]
