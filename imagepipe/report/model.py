"""The report of a run as one value, which every format renders; `report.fold` makes it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.report.drawing import Drawing, Node

Outcome = Literal["succeeded", "failed", "cancelled", "running", "died"]
Status = Literal["succeeded", "failed", "running", "interrupted", "not run"]
ResourceState = Literal["deleted", "kept", "in use", "still held"]

TAIL_LINES = 20
"""Number of last lines that are shown with a failure."""
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
