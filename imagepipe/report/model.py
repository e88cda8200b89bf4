"""The report of a run as one value, made from its events and its journal. Every format is a rendering of it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from imagepipe.clock import parse_iso
from imagepipe.engine import events as ev
from imagepipe.engine.journal import Claim, JournalState, State
from imagepipe.report.drawing import Drawing, Node

Outcome = Literal["succeeded", "failed", "cancelled", "running", "died"]
Status = Literal["succeeded", "failed", "running", "interrupted", "not run"]
ResourceState = Literal["deleted", "kept", "in use", "still held"]

FIRST_LINES, LAST_LINES = 200, 4_800
"""Lines of a stage's log that a report keeps: the first ones and the last ones."""
MOST_CHARACTERS = 1 << 20
"""Characters of a stage's log that a report keeps, beside its first lines."""
LONGEST_LINE = 2_000
LONGEST_SECONDS = 1e9
"""Longest duration that is believed: thirty years."""
TAIL_LINES = 20
"""Number of last lines that are shown with a failure."""
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""A terminal's control sequence: colours and cursor (CSI), titles and links (OSC), and those of two characters."""
STEP = re.compile(r"(?:.*/)?(?P<step>(?:step|test)-\d+)")
"""Stage of a step or a test of a spec."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a log that can be shown: without control characters, and not too long."""

    stream: Literal["out", "err", "say"]
    text: str


@dataclass(frozen=True, slots=True)
class Log:
    """The lines of a stage. Lines in the middle of a long log are left out."""

    first: tuple[LogLine, ...] = ()
    left_out: int = 0
    """Number of lines between the first and the last ones."""
    last: tuple[LogLine, ...] = ()

    @property
    def count(self) -> int:
        """Number of lines, including those that are left out."""
        return len(self.first) + self.left_out + len(self.last)

    def lines(self) -> list[LogLine]:
        """Return the lines, with a note in place of those that are left out."""
        note = [LogLine("say", f"… {self.left_out} lines are left out of this report …")] if self.left_out else []
        return [*self.first, *note, *self.last]

    def tail(self, count: int = TAIL_LINES) -> list[LogLine]:
        """Return the last lines."""
        return self.lines()[-count:]


@dataclass(frozen=True, slots=True)
class SpanReport:
    """Time that a stage spent on one kind of work."""

    label: ev.SpanLabel
    start: float
    """Seconds since the start of the run."""
    seconds: float


@dataclass(frozen=True, slots=True)
class FindingReport:
    """Something that a scan found."""

    stage: str
    rule: str
    path: str
    text: str
    allowed: str
    """Reason for which the spec allows it; empty if it does not."""


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage of the run."""

    number: int
    """Place among the stages of the report, from 0."""
    name: str
    title: str
    spec: str
    region: str
    """Region of the stage; empty if the events of the run do not have it."""
    needs: tuple[str, ...]
    is_test: bool
    is_optional: bool
    """True if the run succeeds even if this stage fails."""
    status: Status
    start: float | None
    """Seconds since the start of the run; None if the stage was not run."""
    seconds: float | None
    """Duration; None if the stage was not run or has not ended."""
    summary: str
    error: str
    hint: str
    code: str
    log: Log
    spans: tuple[SpanReport, ...]

    @property
    def step(self) -> str:
        """Name of the step or test, such as `step-3`; empty for all other stages."""
        found = STEP.fullmatch(self.name)
        return found["step"] if found else ""

    @property
    def end(self) -> float:
        """Seconds from the start of the run to the end of the stage."""
        return (self.start or 0.0) + (self.seconds or 0.0)

    def last_lines(self) -> list[LogLine]:
        """Return the last lines of the log; none if the error has them already, as that of a command does."""
        lines = self.log.tail()
        ends = self.error.rstrip().rpartition("\n")[2].strip()
        return [] if lines and ends == lines[-1].text.strip() else lines


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that the run created in the cloud."""

    kind: str
    region: str
    id: str
    """Id of the resource; its token if the id never arrived."""
    stage: str
    state: ResourceState
    created: float | None
    """Seconds since the start of the run; None if it is not known."""
    deleted: float | None


@dataclass(frozen=True, slots=True)
class ImageReport:
    """An image of the run."""

    spec: str
    region: str
    id: str
    name: str
    is_new: bool
    """False for an image of an earlier run, whose inputs had not changed."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The origin of the images of one spec."""

    spec: str
    id: str
    """Id of the source image."""
    name: str
    base: str
    """Spec of the same run that made the source image; empty if none did."""
    fingerprint: str
    """Digest of all inputs; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class MachineReport:
    """An instance that the run launched, and the time for which it existed."""

    id: str
    region: str
    instance_type: str
    seconds: float
    hourly_price: float | None
    """List price of an hour; None if it is not known, as for spot instances."""
    cost: float | None


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything that a report says about a run."""

    run: str
    specs: tuple[str, ...]
    outcome: Outcome
    started: datetime
    seconds: float
    stages: tuple[StageReport, ...]
    """Stages in the order in which they started; those that were not run are last."""
    has_graph: bool
    """False for a run of an old version, whose events do not have the edges and the tests."""
    critical_path: tuple[str, ...]
    resources: tuple[Resource, ...]
    findings: tuple[FindingReport, ...]
    held: tuple[str, ...]
    """Resources that could not be deleted, each with the reason."""
    images: tuple[ImageReport, ...] = ()
    sources: tuple[SourceReport, ...] = ()
    machines: tuple[MachineReport, ...] = ()
    currency: str = ""
    """Currency of the costs; empty if no price is known."""
    price_date: str = ""
    """Date of the prices."""
    commit: str = ""
    """Commit of the specs; empty if it is not known."""
    next_command: str = ""

    @property
    def failures(self) -> list[StageReport]:
        """The stages that failed, in order of time: the first is the cause."""
        failed = [stage for stage in self.stages if stage.status == "failed"]
        return sorted(failed, key=lambda stage: stage.end)

    @property
    def tests(self) -> list[StageReport]:
        """The stages that are tests, those of each spec together."""
        place = {spec: number for number, spec in enumerate(self.specs)}
        found = [stage for stage in self.stages if stage.is_test]
        return sorted(found, key=lambda stage: place.get(stage.spec, len(place)))

    def spec_drawing(self) -> Drawing:
        """Return the graph of specs: an edge for each spec with a stage that needs a stage of another one."""
        spec_of = {stage.name: stage.spec for stage in self.stages}
        needs: dict[str, dict[str, None]] = {stage.spec: {} for stage in self.stages}
        for stage in self.stages:
            needs[stage.spec] |= {
                spec_of[each]: None for each in stage.needs if spec_of.get(each, stage.spec) != stage.spec
            }
        order, by_spec = _before_their_followers(needs), self.by_spec()
        nodes = {spec: self._spec_node(spec, by_spec[spec]) for spec in order}
        return Drawing(nodes, {spec: tuple(needs[spec]) for spec in order})

    def _spec_node(self, spec: str, own: Sequence[StageReport]) -> Node:
        span = self.span_of(own)
        is_failed = any(stage.status == "failed" for stage in own)
        return Node(spec, span[1] if span else None, "failed" if is_failed else "" if span else "not run")

    def by_spec(self) -> dict[str, list[StageReport]]:
        """Return the stages of each spec. Specs are in the order in which their first stages started."""
        found: dict[str, list[StageReport]] = {}
        for stage in self.stages:
            found.setdefault(stage.spec, []).append(stage)
        return found

    def span_of(self, stages: Iterable[StageReport]) -> tuple[float, float] | None:
        """Return the start of the first of these stages and the duration until the end of the last, in seconds."""
        ran = [(stage.start, self.elapsed(stage) or 0.0) for stage in stages if stage.start is not None]
        if not ran:
            return None
        start = min(start for start, _ in ran)
        return start, max(start + seconds for start, seconds in ran) - start

    def title(self) -> str:
        """Return the specs in one line."""
        return ", ".join(self.specs) or "a run without specs"

    def elapsed(self, stage: StageReport) -> float | None:
        """Return the duration of a stage, so far if it has not ended; None if it was not run."""
        if stage.start is None or stage.seconds is not None:
            return stage.seconds
        return max(0.0, self.seconds - stage.start)

    def drawing(self) -> Drawing:
        """Return the graph of stages, with their durations."""
        by_name = {stage.name: stage for stage in self.stages}
        order = _before_their_followers({name: stage.needs for name, stage in by_name.items()})
        notes = {name: by_name[name].status for name in order}
        return Drawing(
            {
                name: Node(name, self.elapsed(by_name[name]), "" if notes[name] == "succeeded" else notes[name])
                for name in order
            },
            {name: by_name[name].needs for name in order},
        )


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


def _before_their_followers(stages: Mapping[str, Iterable[str]]) -> list[str]:
    """Return names in an order in which each follows those that it needs."""
    found: dict[str, None] = {}
    for name in stages:
        path = {name: None}
        while path:
            last = next(reversed(path))
            missing = [each for each in stages[last] if each in stages and each not in found]
            if not missing or missing[0] in path:  # a file that was changed may contain a cycle
                del path[last]
                found[last] = None
            else:
                path[missing[0]] = None
    return list(found)


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
