"""The events of a run, a closed union of frozen values. The engine never prints: reports are made from events."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Lock
from types import TracebackType, UnionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from imagepipe.clock import Clock, iso, parse_iso
from imagepipe.dataclass import dataclass
from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.masking import Masker

log = logging.getLogger(__name__)

SpanLabel = Literal["boot", "command", "bytes", "wait"]
"""Kinds of work: a machine's boot, a command on it, a transfer of bytes, a wait for the cloud."""


@dataclass(frozen=True, slots=True)
class Event:
    """The fields of every event."""

    time: datetime
    run: str


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """A process starts the run, or resumes it."""

    specs: tuple[str, ...]
    process: str = ""
    """The process and its machine, such as `process 812 on ci-7`; empty in runs of older versions."""


@dataclass(frozen=True, slots=True)
class StagePlanned(Event):
    """A stage of the run's graph. A process emits one for each stage when it starts or resumes the run."""

    stage: str
    title: str
    spec: str
    region: str = ""
    needs: tuple[str, ...] = ()
    """Stages that must have ended before this one starts."""
    is_test: bool = False
    is_optional: bool = False
    """True if the run succeeds even if the stage fails, because it belongs to a region that may fail alone."""


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    stage: str
    title: str


@dataclass(frozen=True, slots=True)
class Line(Event):
    """A line of a step's output, or of imagepipe's own progress."""

    stage: str
    stream: Literal["out", "err", "say"]
    text: str


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """The progress of a stage."""

    stage: str
    text: str
    done: float | None = None
    """From 0 to 1; None if it is unknown."""
    of_bytes: int | None = None
    """Size of the whole, if bytes are transferred."""


@dataclass(frozen=True, slots=True)
class Span(Event):
    """Time that a stage spent on one kind of work; `time` is the end of it."""

    stage: str
    label: SpanLabel
    seconds: float


@dataclass(frozen=True, slots=True)
class Finding(Event):
    """A scan found something that must not be in an image, or that the spec allows."""

    stage: str
    rule: str
    path: str
    text: str
    allowed: str = ""
    """Reason for which the spec allows it; empty if it does not."""


@dataclass(frozen=True, slots=True)
class Held(Event):
    """The run created a resource in a cloud."""

    kind: str
    region: str
    id: str


@dataclass(frozen=True, slots=True)
class Released(Event):
    """The run deleted a resource."""

    kind: str
    region: str
    id: str


@dataclass(frozen=True, slots=True)
class StageFinished(Event):
    stage: str
    seconds: float
    summary: str = ""


@dataclass(frozen=True, slots=True)
class StageFailed(Event):
    stage: str
    seconds: float
    error: str
    hint: str | None = None
    code: str = ""
    """Error code of the cloud, such as `InvalidAMIName.Duplicate`, or exit code of a command; empty without either."""


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    outcome: Literal["succeeded", "failed", "cancelled"]
    seconds: float
    held: tuple[str, ...] = ()
    """The resources that could not be deleted."""


AnyEvent = (
    RunStarted
    | StagePlanned
    | StageStarted
    | Line
    | Progress
    | Span
    | Finding
    | Held
    | Released
    | StageFinished
    | StageFailed
    | RunFinished
)
KINDS: dict[str, type[AnyEvent]] = {
    kind.__name__: kind
    for kind in (
        RunStarted,
        StagePlanned,
        StageStarted,
        Line,
        Progress,
        Span,
        Finding,
        Held,
        Released,
        StageFinished,
        StageFailed,
        RunFinished,
    )
}

Sink = Callable[[AnyEvent], None]
FILE_NAME = "events.jsonl"
LONGEST_BYTES = 16 << 20
"""Longest line of the file; a step's output is cut far below this."""


def process_name(pid: int, host: str) -> str:
    """Return the words for a process of a machine."""
    return f"process {pid} on {host}"


def first_line(text: str) -> str:
    """Return the first line of an error's text; never an empty one."""
    return next(iter(text.splitlines()), "no message")


def to_json(event: AnyEvent) -> dict[str, Any]:
    """Return the event as a line of `events.jsonl`."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    values["time"] = iso(event.time)
    return {"event": type(event).__name__, **values}


def from_json(data: dict[str, Any]) -> AnyEvent:
    """Return the event that `to_json` wrote. Raises ValueError for anything else."""
    try:
        kind: Any = KINDS[data["event"]]
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        del values["event"]
        values["time"] = parse_iso(values["time"])
        event: AnyEvent = kind(**values)
        hints = _hints(kind)
        if wrong := [name for name in values if not _fits(getattr(event, name), hints[name])]:
            raise ValueError(f"not an event: {', '.join(wrong)}")
        return event
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not an event: {error}") from error


@cache
def _hints(kind: type[AnyEvent]) -> Mapping[str, Any]:
    """Return the types of an event's fields; cached, because a file can have a hundred thousand lines."""
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value that was read has the type of its field."""
    if get_origin(hint) is UnionType:
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, str) for each in value)
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is str:  # a lone surrogate is invalid, because it cannot be written as UTF-8
        return isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value
    if hint is datetime:
        return isinstance(value, datetime) and value.tzinfo is not None
    return isinstance(value, hint)


def read_events(path: Path) -> Iterator[AnyEvent]:
    """Yield the events of a run in order; none if the file does not exist.

    A last line that a dead process left incomplete is skipped. Raises UsageError for a line that is not an event,
    ImagepipeError.
    """
    return EventFileReader(path).new()


class EventFileReader:
    """Read a file of events that may still grow."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._bytes = 0
        """Whole lines, and their bytes, that were read before."""

    def new(self) -> Iterator[AnyEvent]:
        """Yield the events that were added since the last call; an incomplete last line is read when it is whole.

        Raises UsageError for a line that is not an event, ImagepipeError.
        """
        path = self._path
        if not path.exists():
            return
        if not path.is_file():
            raise UsageError(f"{path} is not a regular file")  # opening a pipe would block
        try:
            with path.open("rb") as file:
                file.seek(self._bytes)
                for line in iter(lambda: file.readline(LONGEST_BYTES), b""):
                    if not line.endswith(b"\n"):
                        if len(line) < LONGEST_BYTES:
                            return
                        where = f"{path}, line {self._lines + 1}"
                        raise UsageError(f"{where}: longer than {LONGEST_BYTES} bytes, so it is not an event")
                    self._lines += 1
                    self._bytes += len(line)
                    yield _event(line, str(path), self._lines)
        except OSError as error:
            raise ImagepipeError(f"reading {path}: {error.strerror}") from error


def events_in(content: bytes, name: str) -> Iterator[AnyEvent]:
    """Yield the events of a batch of whole lines. Raises UsageError for a line that is not an event."""
    for number, line in enumerate(content.splitlines(), start=1):
        yield _event(line, name, number)


def _event(line: bytes, name: str, number: int) -> AnyEvent:
    try:
        return from_json(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name}, line {number}, cannot be read: {error}", hint="the file was changed") from error


class Events:
    """Accept events from every thread, mask secrets, and pass each event to every sink in one order.

    A sink that raises is dropped with a warning: a report must never harm the build.
    """

    def __init__(self, run: str, clock: Clock, masker: Masker, sinks: Sequence[Sink] = ()) -> None:
        self.run = run
        self.clock = clock
        self.masker = masker
        self._sinks = list(sinks)
        self._lock = Lock()

    def stamp(self) -> tuple[datetime, str]:
        """Return the time and the run's id, which are the first fields of every event."""
        return self.clock.now(), self.run

    def emit(self, event: AnyEvent) -> None:
        """Pass an event to every sink, with its texts masked."""
        texts: dict[str, Any] = {}
        for name in _masked_fields(cast(Any, type(event))):
            value = getattr(event, name)
            if (text := self._masked(value)) is not value:
                texts[name] = text
        masked: AnyEvent = replace(cast(Any, event), **texts) if texts else event
        with self._lock:
            for sink in list(self._sinks):
                try:
                    sink(masked)
                except (Exception, SystemExit) as error:  # noqa: BLE001 - rich ends the process at a closed pipe
                    self._sinks.remove(sink)
                    log.warning("the run continues without its %s: %s", type(sink).__name__, error)

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            text = self.masker.mask(value)
            # A file name may contain bytes that are not valid UTF-8, which no sink could write.
            return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, tuple):
            return tuple(self._masked(item) for item in value)
        return value


@cache
def _masked_fields(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of an event's fields that may hold text."""
    return tuple(field.name for field in fields(kind) if field.name not in ("time", "run"))


class EventFile:
    """The sink that keeps the record: one JSON object a line, flushed line by line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, event: AnyEvent) -> None:
        self._file.write(json.dumps(to_json(event), ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        with suppress(OSError):  # a full disk was already reported when the line was lost
            self._file.close()

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
