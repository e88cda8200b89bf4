"""The tests of new images as JUnit's XML, which CI systems show: a suite for each spec, a case for each test.

Format: the `junit-10.xsd` of Jenkins' xUnit plugin, which GitLab, GitHub's actions and others read as well.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagepipe.engine import events as ev

OUTPUT_LINES = 200
"""The last lines of what a test wrote."""


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests of one spec."""

    spec: str
    cases: tuple[tuple[str, str], ...]
    """Stage and name of each, in order."""


@dataclass(slots=True)
class _Case:
    suite: str
    name: str
    seconds: float = 0.0
    ran: bool = False
    error: str | None = None
    lines: list[str] = field(default_factory=list)


class JUnitReport:
    """A sink for events; the file is written when the run has finished, however it ended."""

    def __init__(self, path: Path, suites: Sequence[Suite]) -> None:
        self._path = path
        self._suites = [suite.spec for suite in suites if suite.cases]
        self._cases = {stage: _Case(suite.spec, name) for suite in suites for stage, name in suite.cases}
        self._cause = ""

    def __call__(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.Line():
                if case := self._cases.get(event.stage):
                    case.lines.append(event.text)
                    del case.lines[:-OUTPUT_LINES]
            case ev.StageFinished():
                if case := self._cases.get(event.stage):
                    case.ran, case.seconds = True, event.seconds
            case ev.StageFailed():
                self._cause = self._cause or f"{event.stage}: {ev.first_line(event.error)}"
                if case := self._cases.get(event.stage):
                    hint = f"\nhint: {event.hint}" if event.hint else ""
                    case.ran, case.seconds, case.error = True, event.seconds, event.error + hint
            case ev.RunFinished():
                self._cause = self._cause or f"the run was {event.outcome}"
                self._write()
            case _:
                pass

    def _write(self) -> None:
        root = ET.Element("testsuites")
        for spec in self._suites:
            cases = [case for case in self._cases.values() if case.suite == spec]
            suite = ET.SubElement(
                root,
                "testsuite",
                name=spec,
                tests=str(len(cases)),
                failures=str(sum(case.error is not None for case in cases)),
                errors="0",
                skipped=str(sum(not case.ran for case in cases)),
                time=f"{sum(case.seconds for case in cases):.3f}",
            )
            for case in cases:
                self._add(suite, case)
        ET.indent(root)
        self._path.write_bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")

    def _add(self, suite: ET.Element, case: _Case) -> None:
        element = ET.SubElement(
            suite, "testcase", name=_xml(case.name), classname=case.suite, time=f"{case.seconds:.3f}"
        )
        if case.error is not None:
            failure = ET.SubElement(element, "failure", message=_xml(ev.first_line(case.error)))
            failure.text = _xml(case.error)
        elif not case.ran:
            ET.SubElement(element, "skipped", message=_xml(f"not run: {self._cause}"))
        if case.lines:
            ET.SubElement(element, "system-out").text = _xml("\n".join(case.lines) + "\n")


def _xml(text: str) -> str:
    """What XML 1.0 may hold: a machine's output has escape characters in it."""
    return "".join(
        c if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff") else "\N{REPLACEMENT CHARACTER}" for c in text
    )
