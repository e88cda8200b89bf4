"""A run of a graph in this process: its journal, events and signals."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from imagepipe.assembly import Plan, plan
from imagepipe.capture.scan.stages import Offline
from imagepipe.cleanup.sweep import Heartbeat
from imagepipe.cleanup.undoers import Undoers
from imagepipe.cli import streams
from imagepipe.cli.cloud import CloudTarget, region_of
from imagepipe.cli.log_options import log_sinks
from imagepipe.cli.past_inputs import PastInputs
from imagepipe.cli.run_options import RunOptions
from imagepipe.clock import Clock, iso
from imagepipe.cloud.ec2 import Regions
from imagepipe.communicator.ssh import Connections
from imagepipe.dataclass import dataclass
from imagepipe.engine import events as ev
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import Events, Sink
from imagepipe.engine.executor import Outcome, RunServices, execute
from imagepipe.engine.graph import Graph
from imagepipe.engine.journal import Journal, RunRecord, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.engine.undo import StillHeld, undo
from imagepipe.errors import UndoFailed
from imagepipe.masking import Masker
from imagepipe.publish.copy_ebs import CopyLimits
from imagepipe.report.junit import JUnitReport, Suite
from imagepipe.resume import Recovered, recover
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.wiring.build import Baked
from imagepipe.wiring.existing import Settled
from imagepipe.wiring.family import groups_of
from imagepipe.wiring.tools import Tools

if TYPE_CHECKING:
    from imagepipe.bundle.manifest import Recipients


@dataclass
class Run:
    """One run: its journal, events and tools."""

    id: str
    store: JournalStore
    clock: Clock
    cancel: Cancel
    target: CloudTarget
    loaded: Sequence[LoadedSpec]
    options: RunOptions
    settled: Settled = field(default_factory=Settled)
    sinks: Sequence[Sink] = ()
    """Further sinks for the run's events."""

    def __post_init__(self) -> None:
        self.folder = self.store.folder(self.id)
        self.masker = Masker(secret for spec in self.loaded for secret in spec.secrets)
        self.junit: JUnitReport | None = None
        self._printers: list[Sink] = []
        self._traces: list[Sink] = []
        self.is_lost = False
        """True if another process has taken over the run."""

    def execute(self, regions: Regions, region: str | None, given: Mapping[str, Any]) -> tuple[Outcome, list[Baked]]:
        """Build the graph and run it. `given` contains the values that `resume` needs to build it again."""
        with ExitStack() as stack:
            self._listen(stack)
            plan = self._plan(stack, regions, region)
            build_names = {key: str(value) for key, value in self.loaded[0].names["build"].items()}
            record = RunRecord(
                self.id, iso(self.clock.now()), self._names(), build_names, self.target.record(), {**given}
            )
            journal = Journal.create(self.store, record, self.clock)
            stack.callback(journal.close)
            self._stop_if_lost(journal, regions)
            return self._run(stack, plan, journal, regions), plan.baked

    def resume(self, regions: Regions, region: str | None, *, dry_run: bool) -> tuple[Outcome, list[Baked]] | None:
        """Continue a run whose process died; with `dry_run`, only print the plan and return None.

        Raises UsageError if the spec or its files have changed, or the run is in progress in another process.
        """
        with ExitStack() as stack:
            self._listen(stack)
            plan = self._plan(stack, regions, region)
            journal = Journal.reopen(self.store, self.id, self.clock)
            stack.callback(journal.close)
            # The journal is ours from here on, so no other process can resume the run.
            self._stop_if_lost(journal, regions)
            found = recover(plan.graph, plan.fingerprints, read(self.store, self.id), regions)
            for line in found.describe(plan.graph):
                click.echo(line, file=self.options.log)
            if dry_run:
                return None
            journal.note("resumed", dropped=list(found.dropped))
            held = self._clean_up(journal, found, regions)
            if held:
                what = f"run {self.id} cannot continue while it holds resources that must be created again"
                raise UndoFailed(f"{what}: {', '.join(map(str, held))}", [each.error for each in held])
            return self._run(stack, plan, journal, regions, finished=found.finished), plan.baked

    def _listen(self, stack: ExitStack) -> None:
        """Open the log and the exporter of traces, before there is a run that could be left behind."""
        self._printers = stack.enter_context(log_sinks(self.options.shown, self.options.log))
        if self.options.otlp:
            from imagepipe.report.otlp_live import live_traces  # an extra

            traces = live_traces(
                os.environ.get("TRACEPARENT", ""), lambda line: click.echo(line, file=self.options.log)
            )
            self._traces = [stack.enter_context(traces)]

    def _stop_if_lost(self, journal: Journal, regions: Regions) -> None:
        """Stop the run, without cleaning up, when another process takes it over."""
        journal.on_lost(self._lose)
        regions.session.check_before_changes(journal.check_held)

    def _lose(self, reason: str) -> None:
        self.is_lost = True
        self.cancel.set(reason)

    def _clean_up(self, journal: Journal, found: Recovered, regions: Regions) -> Sequence[StillHeld]:
        """Delete the resources of the stages that will run again; return those that are still held."""
        if not found.dropped:
            return ()
        with journal.event_sink() as sink:
            events = Events(self.id, self.clock, self.masker, [sink, *self._printers])
            undoers = Undoers(regions, self.clock).undoers()
            held = undo(journal, undoers, events, which=lambda claim: claim.stage in found.dropped)
        if not held:
            journal.note("dropped", stages=list(found.dropped))
        return held

    def _names(self) -> tuple[str, ...]:
        return tuple(str(spec.key) for spec in self.loaded)

    def _plan(self, stack: ExitStack, regions: Regions, region: str | None) -> Plan:
        connections = Connections()
        stack.callback(connections.close)
        tools = Tools(
            regions,
            connections,
            CopyLimits(),
            self.folder,
            self.id,
            self._recipients,
            is_local=self.target.local is not None,
            offline=self._offline(),
            scans=self.folder.parents[1] / "scans",
            cloud=self.target.identity(),
            source_of=PastInputs(self.store).source,
        )
        return plan(self.loaded, tools, region=region_of(region, regions), settled=self.settled)

    def _offline(self) -> Offline | None:
        """Return the reader of the disks that the local cloud captures.

        None for any other cloud, and for a plain user, who may not mount disks: then machines are scanned, as on EC2.
        """
        if not self.target.local:
            return None
        from imagepipe.local.host.rootless import is_plain_user

        if is_plain_user():
            return None
        from imagepipe.cli.local_store import open_store
        from imagepipe.local.disks.files import Disks
        from imagepipe.local.disks.search import scan_disk
        from imagepipe.local.host.foreign import is_foreign

        snapshots = Disks(open_store(Path(self.target.local)).disks).snapshot_path
        return Offline(snapshots, scan_disk, lambda disk: not is_foreign(disk))

    def _run(
        self,
        stack: ExitStack,
        plan: Plan,
        journal: Journal,
        regions: Regions,
        *,
        finished: Mapping[str, Any] | None = None,
    ) -> Outcome:
        sinks: list[Sink] = [
            stack.enter_context(journal.event_sink()),
            *self._printers,
            *self._traces,
            *self.sinks,
        ]
        if self.options.junit:
            self.junit = JUnitReport(self.options.junit, [_suite(baked, plan.graph) for baked in plan.baked])
            if finished:
                self.junit.resume(self.store.events(self.id), frozenset(finished))
            sinks.append(self.junit)
        events = Events(self.id, self.clock, self.masker, sinks)
        process = ev.process_name(os.getpid(), socket.gethostname())
        events.emit(ev.RunStarted(*events.stamp(), self._names(), process))
        for event in planned_events(plan, events):
            events.emit(event)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        self.cancel.also(streams.hurry)
        keep_on_failure = self.options.keep_on_failure
        with Heartbeat(journal, regions, self.clock) as heart, _limit(self.cancel, self.options.timeout):
            undoers = Undoers(regions, self.clock).undoers()
            outcome = execute(
                plan.graph,
                RunServices(journal, events, self.cancel, self.clock, undoers),
                fingerprints=plan.fingerprints,
                finished=finished,
                groups=groups_of(plan.baked, self.loaded, fail_fast=self.options.fail_fast),
                keep_on_failure=keep_on_failure is not None,
            )
        if keep_on_failure is not None and not outcome.ok:
            heart.beat(self.clock.now() + keep_on_failure)
        return outcome

    def _recipients(self, loaded: LoadedSpec, region: str, home: str) -> Recipients:
        from imagepipe.cli.local_store import open_store
        from imagepipe.wiring.certificates import BundleSigning  # loads the libraries of bundles

        local = open_store(Path(self.target.local)).ec2_certificate if self.target.local else None
        return BundleSigning(os.environ, self.folder.parents[1], local).recipients(loaded, region, home=home)


def planned_events(plan: Plan, events: Events) -> Iterator[ev.StagePlanned]:
    """Yield an event for each stage of the graph, so that reports have its edges even if it is never run."""
    spec_of = {stage: build.spec for build in plan.baked for stage in build.stages}
    tests = {stage for build in plan.baked for stage in build.tests}
    optional = {stage for build in plan.baked for part in build.best_effort.values() for stage in part.stages}
    homes: dict[str, str] = {}
    for name in plan.graph.order():
        stage, spec = plan.graph.stages[name], spec_of.get(name, "")
        own = str(getattr(getattr(stage, "ec2", None), "region", ""))
        region = own or homes.get(spec, "")
        homes.setdefault(spec, region)  # the first stage finds the source image in the launch region
        yield ev.StagePlanned(
            *events.stamp(),
            name,
            stage.title(),
            spec,
            region,
            needs=tuple(sorted(plan.graph.needs(name))),
            is_test=name in tests,
            is_optional=name in optional,
        )


@contextmanager
def _limit(cancel: Cancel, timeout: timedelta | None) -> Iterator[None]:
    """Cancel the run after this time."""
    if timeout is None:
        yield
        return
    timer = threading.Timer(
        timeout.total_seconds(), cancel.set, [f"not done within {timeout.total_seconds():g} s (--timeout)"]
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _suite(baked: Baked, graph: Graph) -> Suite:
    alone = frozenset().union(*(part.stages for part in baked.best_effort.values()))
    tests = tuple((stage, graph.stages[stage].title()) for stage in baked.tests)
    return Suite(baked.spec, tests, baked.stages - alone)


@dataclass
class Signals:
    """The state of signal handling in a run."""

    has_begun: bool = False
    """True if the run may hold resources. Before that, it can exit at once."""
    came: bool = False


def _write_to_terminal(words: str) -> None:
    if streams.speaker is not None:
        streams.speaker(words.strip())
        return
    with suppress(OSError):
        os.write(2, words.encode())


@contextmanager
def stopped_by_signals(
    cancel: Cancel,
    *,
    stopping: str = "stopping and cleaning up everything",
    rest: str = "`imagepipe clean --all` cleans up the rest",
) -> Iterator[Signals]:
    """Stop the run cleanly at the first Ctrl-C, SIGTERM or closed terminal; exit at once at the second.

    `stopping` and `rest` are printed at the first and at the second signal.
    """
    signals = Signals()

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if signals.came:
            # The journal is complete at every moment, so `clean` finds everything that is held.
            words = f"\nexiting at once; {rest}\n"
            told = threading.Thread(target=_write_to_terminal, args=(words,), daemon=True)
            told.start()
            told.join(0.5)
            os._exit(130)
        signals.came = True
        if not signals.has_begun:
            raise KeyboardInterrupt
        # Both calls take locks that the interrupted thread may already hold, so they run in threads. They run in two
        # threads because a write to a terminal that is closed or paused by Ctrl-S may fail or block.
        threading.Thread(target=cancel.set, args=(f"got {name}",), daemon=True).start()
        words = f"\n{name}: {stopping}; again to exit at once\n"
        threading.Thread(target=_write_to_terminal, args=(words,), daemon=True).start()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup, a closed terminal must not stop the run
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
