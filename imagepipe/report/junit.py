"""Report a build as JUnit XML for CI systems: a suite for each spec, a case for its build and for each test.

Format: the `junit-10.xsd` of Jenkins' xUnit plugin, which GitLab, GitHub's actions and others read as well.

A build that fails outside its tests is an `error` of the case `build`, so no CI system ever shows it as passed. For the
same reason the file is written before the run, with an error that says the build did not finish: a process that is
killed leaves that error, not the passed tests of an earlier run.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.errors import ImagepipeError

if TYPE_CHECKING:  # a build does not need the model of reports, which takes a while to load
    from imagepipe.report.model import RunReport, StageReport

OUTPUT_LINES = 200
"""Number of last lines of a test's output in the file."""
BUILD = "build"


@dataclass(frozen=True, slots=True)
class Suite:
    """A spec with its tests and other stages."""

    spec: str
    cases: tuple[tuple[str, str], ...]
    """Stage and name of each test, in order."""
    stages: frozenset[str] = frozenset()
    """All stages of the spec."""


@dataclass(slots=True)
class _Case:
    suite: str
    name: str
    seconds: float = 0.0
    ran: bool = False
    failure: str | None = None
    """Message of a test that failed."""
    error: str | None = None
    """Message of any other error of the case."""
    lines: list[str] = field(default_factory=list)


class JUnitReport:
    """A sink for events that writes the file when the run ends, successfully or not."""

    def __init__(self, path: Path, suites: Sequence[Suite]) -> None:
        self._path = path
        self._suites = suites
        self._builds = {suite.spec: _Case(suite.spec, BUILD) for suite in suites}
        self._cases = {stage: _Case(suite.spec, name) for suite in suites for stage, name in suite.cases}
        self._spec_of = {stage: suite.spec for suite in suites for stage in suite.stages}
        self._finished: set[str] = set()
        self._cause = ""
        self.problem: OSError | None = None
        """The reason why the file could not be written."""

    def resume(self, earlier: Iterable[ev.AnyEvent], finished: Collection[str]) -> None:
        """Report the stages that an earlier process of the run finished, with their times and lines.

        The journal decides which stages those are. If the file of events is damaged, only times and lines are lost.
        """
        with suppress(ImagepipeError):
            for event in earlier:
                if isinstance(event, ev.Line | ev.StageFinished) and event.stage in finished:
                    self(event)
        for stage in finished:
            self._finished.add(stage)
            if case := self._cases.get(stage):
                case.ran = True

    def __call__(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.Line():
                if case := self._cases.get(event.stage):
                    case.lines.append(event.text)
                    del case.lines[:-OUTPUT_LINES]
            case ev.StageFinished():
                self._finished.add(event.stage)
                if case := self._cases.get(event.stage):
                    case.ran, case.seconds = True, event.seconds
                elif build := self._builds.get(self._spec_of.get(event.stage, "")):
                    build.seconds += event.seconds
            case ev.StageFailed():
                self._fail(event)
            case ev.RunFinished():
                self._cause = self._cause or f"the run was {event.outcome}"
                self._end_builds(event)
                self._write()
            case _:
                pass

    def _fail(self, event: ev.StageFailed) -> None:
        words = event.error + (f"\nhint: {event.hint}" if event.hint else "")
        self._cause = self._cause or f"{event.stage}: {ev.first_line(event.error)}"
        if case := self._cases.get(event.stage):
            case.ran, case.seconds, case.failure = True, event.seconds, words
        elif build := self._builds.get(self._spec_of.get(event.stage, "")):
            build.error = build.error or f"{event.stage}: {words}"

    def _end_builds(self, event: ev.RunFinished) -> None:
        """Mark the builds that did not finish; those stopped by their own failed test are not errors."""
        for suite in self._suites:
            build = self._builds[suite.spec]
            build.ran = True
            has_failed_test = any(self._cases[stage].failure is not None for stage, _ in suite.cases)
            if event.outcome == "succeeded" or suite.stages <= self._finished:
                continue
            if build.error is None and not has_failed_test:
                build.error = f"not built: {self._cause}"

    def _write(self) -> None:
        root = ET.Element("testsuites")
        for suite in self._suites:
            tests = [self._cases[stage] for stage, _ in suite.cases]
            _add_suite(root, suite.spec, [self._builds[suite.spec], *tests], self._cause)
        try:
            self._path.write_bytes(_xml_file(root))
        except OSError as problem:
            self.problem = problem
            raise


def junit_of(report: RunReport) -> bytes:
    """Return the file for the report of a run. It needs the tests of each spec, so `report.has_graph` must be true."""
    failures = [stage for stage in report.failures if not stage.is_optional]
    how = {"running": "is in progress", "cancelled": "was cancelled"}.get(report.outcome, report.outcome)
    cause = _words(failures[0]).splitlines()[0] if failures else f"the run {how}"
    root = ET.Element("testsuites")
    by_spec = report.by_spec()
    for spec in dict.fromkeys((*report.specs, *by_spec)):
        own = by_spec.get(spec, [])
        _add_suite(root, spec, [_build_case(spec, own, report, cause), *map(_test_case, _tests(own))], cause)
    return _xml_file(root)


def _tests(stages: Iterable[StageReport]) -> list[StageReport]:
    """Return the stages that are tests."""
    return [stage for stage in stages if stage.is_test]


def _build_case(spec: str, own: Sequence[StageReport], report: RunReport, cause: str) -> _Case:
    required = [stage for stage in own if not stage.is_optional]
    others = [stage for stage in required if not stage.is_test]
    failed = min((stage for stage in others if stage.status == "failed"), key=lambda stage: stage.end, default=None)
    case = _Case(spec, BUILD, sum(stage.seconds or 0.0 for stage in others), ran=True)
    has_failed_test = any(stage.status == "failed" for stage in _tests(own))
    is_done = report.outcome == "succeeded" or (own and all(stage.status == "succeeded" for stage in required))
    if failed is not None:
        case.error = _words(failed)
    elif not is_done and not has_failed_test:
        case.error = f"not built: {cause}"
    return case


def _test_case(stage: StageReport) -> _Case:
    case = _Case(stage.spec, stage.title, stage.seconds or 0.0, ran=stage.status in ("succeeded", "failed"))
    case.lines = [line.text for line in stage.log.tail(OUTPUT_LINES)]
    if stage.status == "failed":
        case.failure = stage.error + (f"\nhint: {stage.hint}" if stage.hint else "")
    return case


def _words(stage: StageReport) -> str:
    return f"{stage.name}: {stage.error}" + (f"\nhint: {stage.hint}" if stage.hint else "")


def write_error(path: Path, error: str, *, suites: Sequence[str] = ("imagepipe",)) -> None:
    """Write a report in which each suite has one case, `build`, with this error. Raises OSError."""
    root = ET.Element("testsuites")
    for name in suites:
        _add_suite(root, name, [_Case(name, BUILD, ran=True, error=error)], error)
    path.write_bytes(_xml_file(root))


def _xml_file(root: ET.Element) -> bytes:
    ET.indent(root)
    content: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _add_suite(root: ET.Element, spec: str, cases: Sequence[_Case], cause: str) -> None:
    suite = ET.SubElement(
        root,
        "testsuite",
        name=spec,
        tests=str(len(cases)),
        failures=str(sum(case.failure is not None for case in cases)),
        errors=str(sum(case.error is not None for case in cases)),
        skipped=str(sum(not case.ran for case in cases)),
        time=f"{sum(case.seconds for case in cases):.3f}",
    )
    for case in cases:
        _add_case(suite, case, cause)


def _add_case(suite: ET.Element, case: _Case, cause: str) -> None:
    element = ET.SubElement(suite, "testcase", name=_xml(case.name), classname=case.suite, time=f"{case.seconds:.3f}")
    for kind, words in (("failure", case.failure), ("error", case.error)):
        if words is not None:
            ET.SubElement(element, kind, message=_xml(ev.first_line(words))).text = _xml(words)
    if not case.ran:
        ET.SubElement(element, "skipped", message=_xml(f"not run: {cause}"))
    if case.lines:
        ET.SubElement(element, "system-out").text = _xml("\n".join(case.lines) + "\n")


def _xml(text: str) -> str:
    """Return text without characters that XML 1.0 forbids, such as escape characters in a machine's output."""
    return "".join(
        c if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff") else "\N{REPLACEMENT CHARACTER}" for c in text
    )
