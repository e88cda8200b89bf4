"""Run a graph on threads: a stage starts as soon as its inputs exist; a failure stops the rest of its group.

A stage may decide that a failure of its own does not stop others (`Stage.stops_others`), as a failed test does not stop
the next test. The rest is then stopped as soon as a stage cannot start because it takes the output of a failed one.

Each stage that runs has a daemon thread for itself, and a cancelled run waits for its stages for a limited time. A
stage that hangs, say in a read from a dead file server, can block neither the clean-up nor the end of the process. A
thread that has finished a stage decides which stages start next, and runs one of them itself: starting a thread, or
waking another one, takes longer than the rest of our work for a stage.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import field
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread, current_thread
from typing import Any, Literal, TypeVar, cast

from imagepipe.clock import Clock
from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.encoding import encode
from imagepipe.engine.events import Events
from imagepipe.engine.fingerprint import fingerprints as fingerprints_of
from imagepipe.engine.graph import Graph
from imagepipe.engine.groups import Groups, Limit
from imagepipe.engine.journal import Claim, Journal, Lifetime
from imagepipe.engine.stage import Context, Ref
from imagepipe.engine.undo import StillHeld, Undoer, undo
from imagepipe.errors import Cancelled, CloudError, CommandFailed, ImagepipeError, StageError

T = TypeVar("T")

_Finished = tuple[str, Any, Exception | None]
"""A stage with its output, or with its error."""
MAX_THREADS = 256
"""Largest number of stages that run at once. Most stages only wait, and a waiting thread uses 100 KiB of stack."""
STOP_SECONDS = 60.0
"""Time that a cancelled run waits for its stages: longer than a call to a cloud with all its attempts (35 s)."""
REPORT_SECONDS = 5.0
"""Time after which a cancelled run names the stages that it is waiting for."""
POLL_SECONDS = 1.0
"""Interval at which the executor checks the cancel flag, which other threads set."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that failed."""

    stage: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run. Failures of the clean-up are listed separately, and never hide the cause."""

    outputs: Mapping[str, Any]
    failures: tuple[Failure, ...]
    """Failed stages in order of time: the first is the cause. Stages that were only cancelled are not included."""
    held: tuple[StillHeld, ...]
    cancelled: bool
    interrupted: tuple[str, ...] = ()
    """Stages that were running when the run was asked to stop."""
    stuck: tuple[str, ...] = ()
    """Stages that did not stop when asked; their threads run until the process ends."""
    tolerated: tuple[Failure, ...] = ()
    """Failed stages of optional groups. The run succeeds without them, but their resources are deleted."""

    def __getitem__(self, ref: Ref[T]) -> T:
        return cast(T, self.outputs[ref.stage])

    @property
    def ok(self) -> bool:
        return not self.failures and not self.cancelled


@dataclass(frozen=True, slots=True)
class RunServices:
    """The services that every run of a graph needs."""

    journal: Journal
    events: Events
    cancel: Cancel
    clock: Clock
    undoers: Mapping[str, Undoer]
    """Functions that delete claimed resources, by the kind of claim."""


def execute(
    graph: Graph,
    services: RunServices,
    *,
    fingerprints: Mapping[str, str] | None = None,
    finished: Mapping[str, Any] | None = None,
    groups: Groups | None = None,
    keep_on_failure: bool = False,
    stop_seconds: float = STOP_SECONDS,
) -> Outcome:
    """Run every stage, then clean up: everything after a failure, only temporary resources after a success.

    `fingerprints` are written to the journal with the outputs; by default they are computed from the graph.

    `finished` has the outputs of the stages that an earlier process of the run completed.

    When a stage fails, its group is stopped and undone, with the groups that depend on it. Without `groups`, all stages
    are one group. The run succeeds if only optional groups failed.

    With `keep_on_failure` a failed run keeps everything until `clean` deletes it. A cancelled run keeps nothing.
    """
    journal, events, cancel, clock = services.journal, services.events, services.cancel, services.clock
    began = clock.monotonic()
    marks = fingerprints_of(graph) if fingerprints is None else fingerprints
    run = _Running(graph, services, marks, dict(finished or {}), groups or Groups.one(graph))
    run.run(stop_seconds)
    # A cancel during the end of the last stage is too late: its images are kept, and undo does not delete them.
    required = {name for name in graph.stages if run.group_of[name] not in run.failed}
    is_done = run.outputs.keys() >= required
    was_cancelled = not run.failures and cancel.is_set() and not is_done
    ok = not run.failures and not was_cancelled
    succeeded = {group for group in run.groups.stages if group not in run.failed}

    def is_undone(claim: Claim) -> bool:
        group = run.group_of.get(claim.stage)
        is_of_failed = group not in succeeded
        if keep_on_failure and run.failures:
            return not is_of_failed and claim.lifetime is Lifetime.RUN
        if claim.lifetime is Lifetime.RUN or group in run.failed:
            return True
        return not ok and (is_of_failed or cancel.is_set())

    held = undo(journal, services.undoers, events, which=is_undone, unsettled=frozenset(run.running))
    result: Literal["succeeded", "failed", "cancelled"] = (
        "succeeded" if ok else "cancelled" if was_cancelled else "failed"
    )
    kept = [str(c) for c in journal.claims() if c.is_open()]
    with suppress(ImagepipeError):  # a full disk was already reported, and must not hide the outcome
        journal.note("finished", outcome=result, held=kept)
    events.emit(ev.RunFinished(*events.stamp(), result, clock.monotonic() - began, tuple(map(str, held))))
    return Outcome(
        run.outputs,
        tuple(run.failures),
        held,
        was_cancelled,
        tuple(run.interrupted),
        tuple(sorted(run.running)),
        tuple(run.tolerated),
    )


@dataclass
class _Running:
    """The state of a running graph."""

    graph: Graph
    services: RunServices
    fingerprints: Mapping[str, str]
    outputs: dict[str, Any]
    groups: Groups
    failures: list[Failure] = field(default_factory=list)
    tolerated: list[Failure] = field(default_factory=list)
    """Failures in optional groups."""
    interrupted: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    """Groups that failed, or depend on one that did."""

    def __post_init__(self) -> None:
        self.group_of = self.groups.by_stage()
        self.clock, self.events = self.services.clock, self.services.events
        self.cancels = {group: self.services.cancel.child() for group in self.groups.stages}
        self._admitted: set[str] = set()
        self._failed_stages: set[str] = set()
        self._lock = Lock()
        """Held while a thread takes the result of a stage and chooses those that start next."""
        self._stopped: dict[str, str] = {}
        """Groups that were stopped, with the reasons. Their cancel flags are set as soon as the lock is free."""
        self._is_left = False
        self._over = Event()
        """Set when no stage is running and none can start, or when a thread has failed."""
        self._broken: BaseException | None = None
        self._threads = _Threads(self._run_stage)
        self._waiting = {
            name: set(self.graph.needs(name) - self.outputs.keys())
            for name in self.graph.order()
            if name not in self.outputs
        }
        self._ready = {name: None for name, needs in self._waiting.items() if not needs}
        """Stages that wait for no other stage, but perhaps for their group; the keys are in the order of starting."""

    def run(self, stop_seconds: float) -> None:
        """Run all stages to the end. Stop waiting `stop_seconds` after the remaining ones were asked to stop."""
        try:
            self._run(stop_seconds)
        finally:
            with self._lock:
                self._is_left = True
            self._threads.end()

    def _run(self, stop_seconds: float) -> None:
        asked: float | None = None
        is_reported = False
        self._start()
        while not self._over.wait(POLL_SECONDS):
            self._start()  # another thread may have set a flag, which can make room for stages of other groups
            now = self.clock.monotonic()
            with self._lock:
                is_stopping = bool(self.running) and all(self._is_cancelled(name) for name in self.running)
                if is_stopping and asked is not None and now - asked >= stop_seconds:
                    self._is_left = True  # decided under this lock, or a stage that ends now could start others
                    break
            if not is_stopping:
                asked = None
            elif asked is None:
                asked = now
            elif now - asked >= REPORT_SECONDS and not is_reported:
                is_reported = True
                self._report_running_stages(stop_seconds)
        if self._broken is not None:
            raise self._broken

    def _start(self) -> None:
        """Start the stages that can start; the run is over if there are none, and none is running."""
        with self._lock:
            started = self._choose_ready_stages()
            is_over = not self.running
        for name in started:
            self._threads.run(name)
        if is_over:
            self._over.set()

    def _run_stage(self, name: str) -> str | None:
        """Run a stage, then let others start. Returns one of them for the same thread."""
        if self._is_left:
            return None  # it waited in the queue
        try:
            return self._finish(self._work(name))
        except BaseException as error:  # noqa: BLE001 - a fault of the executor must not leave the run waiting
            self._broken = error
            self._over.set()
            return None

    def _finish(self, finished: _Finished) -> str | None:
        with self._lock:
            if self._is_left:
                return None  # the run waits no longer, and has reported the stage as stuck
            self._take(*finished)
            started = self._choose_ready_stages()
            stopped = [group for group in self._stopped if not self.cancels[group].is_set()]
            is_over = not self.running
        for name in started[1:]:
            self._threads.run(name)
        for group in stopped:
            self.cancels[group].set(self._stopped[group])
        if is_over:
            self._over.set()
        return started[0] if started else None

    def _is_cancelled(self, name: str) -> bool:
        return self._is_stopped(self.group_of[name])

    def _is_stopped(self, group: str) -> bool:
        return group in self._stopped or self.cancels[group].is_set()

    def _report_running_stages(self, stop_seconds: float) -> None:
        for name in sorted(self.running):
            text = (
                f"still running after {REPORT_SECONDS:g} s; the clean-up begins after {stop_seconds:g} s at the latest"
            )
            self.events.emit(ev.Line(*self.events.stamp(), name, "say", text))

    def _choose_ready_stages(self) -> list[str]:
        """Mark the stages that can start as running, and return them."""
        started = []
        at_work: dict[Limit, int] = {}
        refused: set[str] = set()
        for name in self._ready:
            if len(self.running) >= MAX_THREADS:
                break
            group = self.group_of[name]
            if group in refused or self._is_stopped(group):
                continue
            if not self._admit(group, at_work):
                refused.add(group)
                continue
            started.append(name)
            self.running.add(name)
        for name in started:
            del self._waiting[name], self._ready[name]
        return started

    def _admit(self, group: str, at_work: dict[Limit, int]) -> bool:
        """Return whether stages of a group may start: the groups it depends on are ready, and no limit is reached.

        `at_work` keeps the number of groups at work under each limit, which is counted once for all ready stages.
        """
        if group in self._admitted:
            return True
        if not self.groups.after.get(group, frozenset()) <= self.outputs.keys():
            return False
        limits = [limit for limit in self.groups.limits if group in limit.groups]
        for limit in limits:
            if limit not in at_work:
                at_work[limit] = sum(not self._is_over(each) for each in limit.groups & self._admitted)
            if at_work[limit] >= limit.at_once:
                return False
        self._admitted.add(group)
        for limit in limits:
            at_work[limit] += 1
        return True

    def _is_over(self, group: str) -> bool:
        stages = self.groups.stages[group]
        return stages <= self.outputs.keys() or (self._is_stopped(group) and not stages & self.running)

    def _fail(self, group: str, reason: str) -> None:
        """Stop a group and the groups that depend on it; with `fail_fast`, all that are not finished."""
        stops_all = self.groups.fail_fast and group not in self.groups.optional
        others = self.groups.stages.keys() if stops_all else self.groups.dependents(group)
        stopped = {group, *(each for each in others if not self.groups.stages[each] <= self.outputs.keys())}
        self.failed |= stopped
        for each in stopped:
            self._stopped.setdefault(each, reason)

    def _work(self, name: str) -> _Finished:
        cancel = self.cancels[self.group_of[name]]
        ctx = Context(name, self.outputs, self.services.journal, self.events, cancel, self.clock)
        try:
            return name, _run_one(self.graph, name, ctx, self.events, self.fingerprints[name]), None
        except Exception as error:  # noqa: BLE001 - the executor reports the failures of stages
            return name, None, error
        except BaseException as error:  # noqa: BLE001 - a library that exits the process only ends its stage
            return name, None, StageError(f"{type(error).__name__}: {error}")

    def _take(self, name: str, result: Any, error: Exception | None) -> None:
        self.running.discard(name)
        if error is None:
            self.outputs[name] = result
            self._release_followers(name)
        elif isinstance(error, Cancelled):
            self.interrupted.append(name)
        else:
            is_optional = self.group_of[name] in self.groups.optional
            (self.tolerated if is_optional else self.failures).append(Failure(name, error))
            self._failed_stages.add(name)
            self.failed.add(self.group_of[name])
            if self.graph.stages[name].stops_others(error):
                self._fail(self.group_of[name], f"{name} failed")
            self._release_followers(name)

    def _release_followers(self, name: str) -> None:
        """Let the stages that wait for this one start; stop the group of a stage that lost an input, once it is due."""
        for follower in self.graph.feeds(name):
            needs = self._waiting.get(follower)
            if needs is None:
                continue
            needs.discard(name)
            if needs:
                continue
            if self._failed_stages and (lost := self.graph.inputs(follower) & self._failed_stages):
                del self._waiting[follower]
                self._fail(self.group_of[follower], f"{', '.join(sorted(lost))} failed")
            else:
                self._ready[follower] = None


class _Threads:
    """Daemon threads that run stages. There are as many as stages ran at once."""

    def __init__(self, run: Callable[[str], str | None]) -> None:
        self._run = run
        self._stages: SimpleQueue[str | None] = SimpleQueue()
        self._idle: SimpleQueue[None] = SimpleQueue()
        """An entry for each thread that has nothing to do."""
        self._count = itertools.count()

    def run(self, stage: str) -> None:
        """Run a stage in a thread that is idle, or in a new one."""
        self._stages.put(stage)
        try:
            self._idle.get_nowait()
        except Empty:
            next(self._count)
            Thread(target=self._run_stages, name=f"stage {stage}", daemon=True).start()

    def end(self) -> None:
        """End each thread once it has nothing to do. One whose stage hangs ends with the process."""
        for _ in range(next(self._count)):
            self._stages.put(None)

    def _run_stages(self) -> None:
        while (stage := self._stages.get()) is not None:
            following: str | None = stage
            while following is not None:
                current_thread().name = f"stage {following}"
                following = self._run(following)
            current_thread().name = "idle"
            self._idle.put(None)


def _run_one(graph: Graph, name: str, ctx: Context, events: Events, fingerprint: str) -> Any:
    stage = graph.stages[name]
    began = ctx.clock.monotonic()
    try:
        ctx.cancel.check()
        events.emit(ev.StageStarted(*events.stamp(), name, stage.title()))
        if not stage.is_repeatable():
            ctx.journal.begin(name)
        result = stage.run(ctx)
        summary = stage.summary(result)
        ctx.journal.note("output", stage=name, fingerprint=fingerprint, value=encode(result))
    except Cancelled:
        raise
    except BaseException as error:
        hint = error.hint if isinstance(error, ImagepipeError) else None
        seconds = ctx.clock.monotonic() - began
        events.emit(ev.StageFailed(*events.stamp(), name, seconds, _message_of(error), hint, _code_of(error)))
        with suppress(ImagepipeError):
            ctx.journal.note("failed", stage=name)
        raise
    events.emit(ev.StageFinished(*events.stamp(), name, ctx.clock.monotonic() - began, summary))
    return result


def _code_of(error: BaseException) -> str:
    match error:
        case CloudError():
            return error.code
        case CommandFailed(code=int(code)):
            return str(code)
        case _:
            return ""


def _message_of(error: BaseException) -> str:
    return str(error) if isinstance(error, ImagepipeError) else f"{type(error).__name__}: {error}"
