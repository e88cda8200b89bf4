"""The log of a run for CI systems that fold parts of a log: the output of a stage is printed as one part, when it ends.

Stages run in parallel, so folded parts of several stages cannot be open at the same time. Starts, ends and progress are
printed at once, so that a long stage does not look dead.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import datetime
from typing import IO, Protocol

from imagepipe.engine import events as ev
from imagepipe.report.console import ConsoleReport, printable

MOST_LINES = 20_000
"""Last lines of a stage that are printed; the run's own events have all of them."""


class Folds(Protocol):
    """The syntax of a CI system."""

    def start(self, stage: str, header: str, time: datetime) -> str:
        """Return the line that begins a folded part."""

    def end(self, stage: str, time: datetime) -> str:
        """Return the line that ends it."""

    def error(self, stage: str, message: str) -> str:
        """Return the line that reports an error; empty if the system has none."""


class GitHubFolds:
    """GitHub Actions' workflow commands (GitHub docs, "Workflow commands for GitHub Actions")."""

    def start(self, stage: str, header: str, time: datetime) -> str:
        return f"::group::{_one_line(header)}"

    def end(self, stage: str, time: datetime) -> str:
        return "::endgroup::"

    def error(self, stage: str, message: str) -> str:
        escaped = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        return f"::error title=imagepipe%3A {_property(stage)}::{escaped}"


class GitLabFolds:
    """GitLab's collapsible sections (GitLab docs, "Expand and collapse job log sections")."""

    def start(self, stage: str, header: str, time: datetime) -> str:
        begin = f"section_start:{int(time.timestamp())}:{_section(stage)}[collapsed=true]"
        return f"\x1b[0K{begin}\r\x1b[0K{_one_line(header)}"

    def end(self, stage: str, time: datetime) -> str:
        return f"\x1b[0Ksection_end:{int(time.timestamp())}:{_section(stage)}\r\x1b[0K"

    def error(self, stage: str, message: str) -> str:
        return ""


class FoldedReport:
    """A sink for events that prints the output of each stage as one folded part."""

    def __init__(self, file: IO[str], folds: Folds, *, is_verbose: bool = False) -> None:
        self._file, self._folds = file, folds
        self._log = ConsoleReport(file, has_colours=False, is_verbose=is_verbose)
        self._lines: dict[str, deque[str]] = {}
        self._titles: dict[str, str] = {}

    def __call__(self, event: ev.AnyEvent) -> None:
        match event:
            case ev.Line(stream="out") | ev.Line(stream="err"):
                self._log.note(event)
                # The bar keeps a line of the machine from being a command to the CI system.
                self._lines.setdefault(event.stage, deque(maxlen=MOST_LINES)).append(f"| {printable(event.text)}")
                return
            case ev.StageStarted():
                self._titles[event.stage] = event.title
            case ev.StageFinished():
                self._fold(event.stage, event.time)
            case ev.StageFailed():
                self._print(*self._lines.pop(event.stage, ()))  # unfolded, because somebody will look for it
            case ev.RunFinished():
                for stage in list(self._lines):  # stages that were interrupted
                    self._fold(stage, event.time)
            case _:
                pass
        self._log(event)
        if isinstance(event, ev.StageFailed) and (line := self._folds.error(event.stage, _message(event))):
            self._print(line)

    def _fold(self, stage: str, time: datetime) -> None:
        if lines := self._lines.pop(stage, None):
            header = f"{stage}: {self._titles.get(stage, '')} ({len(lines)} lines)"
            self._print(self._folds.start(stage, header, time), *lines, self._folds.end(stage, time))

    def _print(self, *lines: str) -> None:
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()


def _message(event: ev.StageFailed) -> str:
    return ev.first_line(event.error) + (f"\nhint: {event.hint}" if event.hint else "")


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def _property(text: str) -> str:
    for character in "%\r\n:,":
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _section(stage: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", stage)
