"""Runs a graph on threads: a stage starts the moment its inputs are there; the first failure stops the rest."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal, TypeVar, cast

from imagepipe.clock import Clock
from imagepipe.engine import events as ev
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.encoding import encode
from imagepipe.engine.events import Events
from imagepipe.engine.fingerprint import fingerprints
from imagepipe.engine.graph import Graph
from imagepipe.engine.journal import Claim, Journal, Lifetime
from imagepipe.engine.stage import Context, Ref
from imagepipe.engine.undo import StillHeld, Undoer, undo
from imagepipe.errors import Cancelled, ImagepipeError

T = TypeVar("T")

MAX_THREADS = 256
"""Stages wait far more than they work; a thread that waits costs its stack, some 100 KiB in use."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A stage that failed."""

    stage: str
    error: Exception


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. Raises nothing: what could not be cleaned up never hides the cause."""

    outputs: Mapping[str, Any]
    failures: tuple[Failure, ...]
    """In the order of time; the first is the cause. Stages that merely obeyed a cancel are not among them."""
    held: tuple[StillHeld, ...]
    cancelled: bool
    interrupted: tuple[str, ...] = ()
    """Stages that were at work when the run was asked to stop."""

    def __getitem__(self, ref: Ref[T]) -> T:
        return cast(T, self.outputs[ref.stage])

    @property
    def ok(self) -> bool:
        return not self.failures and not self.cancelled


def execute(
    graph: Graph,
    *,
    journal: Journal,
    events: Events,
    cancel: Cancel,
    clock: Clock,
    undoers: Mapping[str, Undoer],
    keep_on_failure: bool = False,
    finished: Mapping[str, Any] | None = None,
) -> Outcome:
    """Run every stage, then give back what should not stay: after a failure all, after a success what is temporary.

    `finished` has the outputs of stages that an earlier process of the run has done.

    With `keep_on_failure` a failed run gives back nothing; `clean` does it later. A cancelled one gives back all.
    """
    began = clock.monotonic()
    outputs, failures, interrupted = _run_stages(graph, journal, events, cancel, clock, dict(finished or {}))
    was_cancelled = bool(not failures and cancel.is_set())
    ok = not failures and not was_cancelled
    held: tuple[StillHeld, ...] = ()
    if ok:
        held = undo(journal, undoers, events, which=_is_temporary)
    elif not (keep_on_failure and failures):
        held = undo(journal, undoers, events)
    result: Literal["succeeded", "failed", "cancelled"] = (
        "succeeded" if ok else "cancelled" if was_cancelled else "failed"
    )
    kept = [str(c) for c in journal.claims() if c.is_open()]
    with suppress(ImagepipeError):  # a full disk was said already, and must not hide how the run ended
        journal.note("finished", outcome=result, held=kept)
    events.emit(ev.RunFinished(*events.stamp(), result, clock.monotonic() - began, tuple(map(str, held))))
    return Outcome(outputs, tuple(failures), held, was_cancelled, tuple(interrupted))


def _is_temporary(claim: Claim) -> bool:
    return claim.lifetime is Lifetime.RUN


def _run_stages(
    graph: Graph, journal: Journal, events: Events, cancel: Cancel, clock: Clock, outputs: dict[str, Any]
) -> tuple[dict[str, Any], list[Failure], list[str]]:
    failures: list[Failure] = []
    interrupted: list[str] = []
    waiting = {name: graph.needs(name) - outputs.keys() for name in graph.order() if name not in outputs}
    marks = fingerprints(graph)
    done: SimpleQueue[tuple[str, Any, Exception | None]] = SimpleQueue()
    running: set[str] = set()

    def work(name: str) -> None:
        ctx = Context(name, outputs, journal, events, cancel, clock)
        result, error = _run_one(graph, name, ctx, events, marks[name])
        done.put((name, result, error))

    with ThreadPoolExecutor(max_workers=MAX_THREADS, thread_name_prefix="stage") as pool:
        while True:
            if not failures and not cancel.is_set():
                for name in [name for name, needs in waiting.items() if not needs]:
                    del waiting[name]
                    running.add(name)
                    pool.submit(work, name)
            if not running:
                return outputs, failures, interrupted
            name, result, error = done.get()
            running.discard(name)
            if error is None:
                outputs[name] = result
                for follower in graph.feeds(name):
                    if follower in waiting:
                        waiting[follower] -= {name}
            elif isinstance(error, Cancelled):
                interrupted.append(name)
            else:
                failures.append(Failure(name, error))
                cancel.set(f"{name} failed")


def _run_one(graph: Graph, name: str, ctx: Context, events: Events, fingerprint: str) -> tuple[Any, Exception | None]:
    stage = graph.stages[name]
    began = ctx.clock.monotonic()
    try:
        ctx.cancel.check()
        events.emit(ev.StageStarted(*events.stamp(), name, stage.title()))
        if not stage.is_repeatable():
            ctx.journal.note("begun", stage=name)
        result = stage.run(ctx)
        ctx.journal.note("output", stage=name, fingerprint=fingerprint, value=encode(result))
    except Exception as error:  # noqa: BLE001 - a stage's failure is the executor's to report
        hint = error.hint if isinstance(error, ImagepipeError) else None
        if not isinstance(error, Cancelled):
            seconds = ctx.clock.monotonic() - began
            events.emit(ev.StageFailed(*events.stamp(), name, seconds, _words(error), hint))
        return None, error
    seconds = ctx.clock.monotonic() - began
    events.emit(ev.StageFinished(*events.stamp(), name, seconds, stage.summary(result)))
    return result, None


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, ImagepipeError) else f"{type(error).__name__}: {error}"
