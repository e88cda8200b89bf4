"""Make the report of a run from its events and its journal. Memory is bounded, and a changed file does no harm."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime

from imagepipe.clock import parse_iso
from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.journal import Claim, JournalState, State
from imagepipe.report.model import (
    FindingReport,
    ImageReport,
    Log,
    LogLine,
    Outcome,
    Resource,
    ResourceState,
    RunReport,
    SpanReport,
    StageReport,
    Status,
)

FIRST_LINES, LAST_LINES = 200, 4_800
"""Lines of a stage's log that a report keeps: the first ones and the last ones."""
MOST_CHARACTERS = 1 << 20
"""Characters of a stage's log that a report keeps, beside its first lines."""
LONGEST_LINE = 2_000
LONGEST_SECONDS = 1e9
"""Longest duration that is believed: thirty years."""
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""A terminal's control sequence: colours and cursor (CSI), titles and links (OSC), and those of two characters."""


@dataclass(slots=True)
class _Lines:
    """A log that grows: memory is bounded, whatever a command prints."""

    first: list[LogLine] = field(default_factory=list)
    last: deque[LogLine] = field(default_factory=deque)
    characters: int = 0
    left_out: int = 0

    def add(self, line: LogLine) -> None:
        if len(self.first) < FIRST_LINES:
            self.first.append(line)
            return
        self.last.append(line)
        self.characters += len(line.text)
        while len(self.last) > LAST_LINES or self.characters > MOST_CHARACTERS:
            self.characters -= len(self.last.popleft().text)
            self.left_out += 1


@dataclass(slots=True)
class _Stage:
    title: str = ""
    spec: str = ""
    region: str = ""
    needs: tuple[str, ...] = ()
    is_test: bool = False
    is_optional: bool = False
    status: Status = "not run"
    start: float | None = None
    seconds: float | None = None
    summary: str = ""
    error: str = ""
    hint: str = ""
    code: str = ""
    lines: _Lines = field(default_factory=_Lines)
    spans: list[SpanReport] = field(default_factory=list)


class Fold:
    """Collects the events of a run, one by one."""

    def __init__(self) -> None:
        self.started: datetime | None = None
        self.specs: tuple[str, ...] = ()
        self.end = 0.0
        self.has_graph = False
        self.finished: ev.RunFinished | None = None
        self.stages: dict[str, _Stage] = {}
        self.created: dict[tuple[str, str, str], float] = {}
        self.deleted: dict[tuple[str, str, str], float] = {}
        self.findings: dict[FindingReport, None] = {}

    def add(self, event: ev.AnyEvent) -> None:
        """Add the next event."""
        if self.started is None:
            self.started = _in_utc(event.time)
        at = max(0.0, (event.time - self.started).total_seconds())
        self.end = max(self.end, at)
        match event:
            case ev.RunStarted():
                self.specs, self.finished = event.specs, None
            case ev.RunFinished():
                self.finished = event
            case ev.Held():
                self.created.setdefault((event.kind, event.region, event.id), at)
            case ev.Released():
                self.deleted[event.kind, event.region, event.id] = at
            case ev.Finding():
                texts = map(clean, (event.stage, event.rule, event.path, event.text, event.allowed))
                self.findings[FindingReport(*texts)] = None
            case _:
                self._add_to_stage(self.stages.setdefault(event.stage, _Stage()), event, at)

    def _add_to_stage(self, stage: _Stage, event: ev.AnyEvent, at: float) -> None:
        match event:
            case ev.StagePlanned():
                self.has_graph = True
                stage.title, stage.spec, stage.region = clean(event.title), event.spec, event.region
                stage.needs, stage.is_test, stage.is_optional = event.needs, event.is_test, event.is_optional
            case ev.StageStarted():  # again, if the run was resumed: the last time counts, but all lines are kept
                stage.title, stage.status = clean(event.title), "interrupted"
                stage.start, stage.seconds = at, None
                stage.summary = stage.error = stage.hint = stage.code = ""
                stage.spans.clear()
            case ev.Line():
                stage.lines.add(LogLine(event.stream, clean(event.text)))
            case ev.Span():
                seconds = _bounded(event.seconds)
                stage.spans.append(SpanReport(event.label, max(0.0, at - seconds), seconds))
            case ev.StageFinished():
                stage.status, stage.summary = "succeeded", clean(event.summary)
                self._end(stage, event.seconds, at)
            case ev.StageFailed():
                stage.status, stage.error = "failed", clean(event.error, newlines=True)
                stage.hint, stage.code = clean(event.hint or "", newlines=True), clean(event.code)
                self._end(stage, event.seconds, at)
            case _:
                pass

    def _end(self, stage: _Stage, seconds: float, at: float) -> None:
        stage.seconds = _bounded(seconds)
        if stage.start is None:
            stage.start = max(0.0, at - stage.seconds)


def report_of(events: Iterable[ev.AnyEvent], journal: JournalState, images: Sequence[ImageReport] = ()) -> RunReport:
    """Return the report of a run, without its origin and its machines, which the journal alone does not explain."""
    fold = Fold()
    for event in events:
        fold.add(event)
    outcome = _outcome(journal, fold.finished)
    stages = tuple(_stages(fold, outcome, journal.run.specs))
    report = RunReport(
        run=clean(journal.run.id),
        specs=tuple(map(clean, fold.specs or journal.run.specs)),
        outcome=outcome,
        started=fold.started or _parsed(journal.run.started),
        seconds=fold.end,
        stages=stages,
        has_graph=fold.has_graph,
        critical_path=(),
        resources=tuple(_resources(fold, journal.claims, is_alive=journal.is_alive)),
        findings=tuple(fold.findings),
        held=tuple(clean(text) for text in fold.finished.held) if fold.finished else (),
        images=tuple(images),
        commit=clean(journal.run.build.get("git_sha", "")),
        next_command=_next_command(journal, outcome),
    )
    return _with_critical_path(report)


class _Shown(dict[int, int]):
    """A table for `str.translate`, filled on demand, which replaces characters that are not printable, but for some."""

    def __init__(self, kept: str) -> None:
        super().__init__((ord(each), ord(each)) for each in kept)

    def __missing__(self, code: int) -> int:
        self[code] = code if chr(code).isprintable() else ord("\N{REPLACEMENT CHARACTER}")
        return self[code]


LINE, TEXT = _Shown("\t"), _Shown("\t\n")


def clean(text: str, *, newlines: bool = False) -> str:
    """Return a text without control characters and terminal sequences, cut if it is long."""
    if not text.isprintable():
        text = ESCAPE_SEQUENCE.sub("", text).rstrip("\r\n").translate(TEXT if newlines else LINE)
    most = LONGEST_LINE * (10 if newlines else 1)
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most} more characters)"


def _bounded(seconds: float) -> float:
    """Return a duration of a file that may have been changed: a number from 0 to LONGEST_SECONDS, and 0 for NaN."""
    return float(min(max(0.0, seconds), LONGEST_SECONDS))


def _in_utc(moment: datetime) -> datetime:
    """Return a time in UTC; one at the ends of the calendar has none, and stays as it is."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return moment.replace(tzinfo=UTC)


def _outcome(journal: JournalState, finished: ev.RunFinished | None) -> Outcome:
    if journal.is_alive:
        return "running"
    if finished is not None:
        return finished.outcome
    match journal.outcome:
        case "succeeded" | "failed" | "cancelled" as outcome:
            return outcome
        case _:
            return "died"


def _stages(fold: Fold, outcome: Outcome, specs: Sequence[str]) -> list[StageReport]:
    rows = []
    stages = sorted(fold.stages.items(), key=lambda item: (item[1].start is None, item[1].start or 0.0))
    for number, (name, stage) in enumerate(stages):
        is_at_work = stage.status == "interrupted" and outcome == "running"
        rows.append(
            StageReport(
                number=number,
                name=clean(name),
                title=stage.title or clean(name),
                spec=clean(stage.spec or name.rpartition("/")[0] or (specs[0] if len(specs) == 1 else "")),
                region=clean(stage.region),
                needs=tuple(map(clean, stage.needs)),
                is_test=stage.is_test,
                is_optional=stage.is_optional,
                status="running" if is_at_work else stage.status,
                start=stage.start,
                seconds=stage.seconds,
                summary=stage.summary,
                error=stage.error,
                hint=stage.hint,
                code=stage.code,
                log=Log(tuple(stage.lines.first), stage.lines.left_out, tuple(stage.lines.last)),
                spans=tuple(stage.spans),
            )
        )
    return rows


def _resources(fold: Fold, claims: Sequence[Claim], *, is_alive: bool) -> list[Resource]:
    rows = []
    for claim in claims:
        if claim.id is None and claim.state is not State.INTENDED:
            continue  # a call that created nothing
        id = claim.id or claim.token
        key = (claim.kind, claim.region, id)
        if claim.state is State.RELEASED:
            state: ResourceState = "deleted"
        elif claim.state is State.KEPT:
            state = "kept"
        else:
            state = "in use" if is_alive else "still held"
        kind, region, id, stage = map(clean, (*key, claim.stage))
        rows.append(Resource(kind, region, id, stage, state, fold.created.get(key), fold.deleted.get(key)))
    return rows


def _with_critical_path(report: RunReport) -> RunReport:
    if not report.has_graph:
        return report
    return replace(report, critical_path=tuple(report.drawing().critical_path))


def _parsed(text: str) -> datetime:
    try:
        return parse_iso(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def _next_command(journal: JournalState, outcome: Outcome) -> str:
    """Return the command that continues or cleans up; empty if nothing is left to do."""
    if outcome == "died":
        return f"imagepipe resume {journal.run.id}"
    is_left = bool(journal.open_claims())
    return f"imagepipe clean {journal.run.id}" if is_left and outcome != "running" else ""
