"""A run of a graph in this process: its folder, journal, events, signals; and what is said when it has ended."""

from __future__ import annotations

import gc
import json
import os
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import IO, Any

import click

from imagepipe.bundle.manifest import Recipients
from imagepipe.bundling import Seals
from imagepipe.capture.hygiene import Offline
from imagepipe.cli import streams
from imagepipe.cli.cloud import Chosen, region_of
from imagepipe.cli.given import state_folder
from imagepipe.clock import Clock, iso
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.translate import EXPIRED
from imagepipe.communicator.ssh import Connections
from imagepipe.engine import events as ev
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import EventFile, Events, Sink
from imagepipe.engine.executor import Outcome, execute
from imagepipe.engine.graph import Graph
from imagepipe.engine.journal import Journal, RunRecord, read
from imagepipe.engine.undo import StillHeld, undo
from imagepipe.errors import CloudError, ImagepipeError, StageFailed, UndoFailed
from imagepipe.holdings import Holdings
from imagepipe.masking import Masker
from imagepipe.pipeline import Baked, plan
from imagepipe.publish.copy import CopyLimits
from imagepipe.recovery import Recovered, recover
from imagepipe.report.console import ConsoleReport
from imagepipe.report.junit import JUnitReport, Suite
from imagepipe.spec.load import LoadedSpec
from imagepipe.sweep import Heartbeat
from imagepipe.values import Endpoint, Image
from imagepipe.wiring.tools import Tools


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `build` and `resume` that the run itself obeys."""

    log: IO[str]
    """Where the lines of the run are printed."""
    as_json: bool = False
    junit: Path | None = None
    timeout: timedelta | None = None
    keep_on_failure: timedelta | None = None
    """How long a failed run's resources stay; None where they are deleted at once."""
    keep_going: bool = False
    """The failure of one spec leaves the others alone."""


class Run:
    """One run: its folder, journal, events and tools."""

    def __init__(
        self,
        run_id: str,
        clock: Clock,
        cancel: Cancel,
        chosen: Chosen,
        loaded: Sequence[LoadedSpec],
        options: RunOptions,
    ) -> None:
        self.id = run_id
        self.clock = clock
        self.cancel = cancel
        self.chosen = chosen
        self.loaded = loaded
        self.options = options
        self.folder = state_folder() / run_id
        self.masker = Masker(secret for one in loaded for secret in one.secrets)
        self.junit: JUnitReport | None = None

    def execute(self, regions: Regions, region: str | None, given: Mapping[str, Any]) -> tuple[Outcome, list[Baked]]:
        """Build the graph and run it. `given` is what `resume` needs to build it again."""
        with ExitStack() as stack:
            graph, baked = self._planned(stack, regions, region)
            build_names = {key: str(value) for key, value in self.loaded[0].names["build"].items()}
            record = RunRecord(
                self.id, iso(self.clock.now()), self._names(), build_names, self.chosen.record(), {**given}
            )
            journal = Journal.create(self.folder, record, self.clock)
            stack.callback(journal.close)
            outcome = self._run(stack, graph, baked, journal, regions)
            return outcome, baked

    def resume(self, regions: Regions, region: str | None, *, dry_run: bool) -> tuple[Outcome, list[Baked]] | None:
        """Go on where a dead process of the run was; None where it is only to be said what would be done.

        Raises UsageError where the spec or its files have changed, or the run is going on in another process.
        """
        with ExitStack() as stack:
            graph, baked = self._planned(stack, regions, region)
            journal = Journal.reopen(self.folder, self.clock)
            stack.callback(journal.close)
            found = recover(graph, read(self.folder), regions)  # now that no other process can go on with it
            for line in found.words(graph):
                click.echo(line, file=self.options.log)
            if dry_run:
                return None
            journal.note("resumed", dropped=list(found.dropped))
            held = self._give_back(journal, found, regions)
            if held:
                what = f"run {self.id} cannot go on while it holds what must be made anew"
                raise UndoFailed(f"{what}: {', '.join(map(str, held))}", [each.error for each in held])
            outcome = self._run(stack, graph, baked, journal, regions, finished=found.finished)
            return outcome, baked

    def _give_back(self, journal: Journal, found: Recovered, regions: Regions) -> Sequence[StillHeld]:
        """What the stages held that are done anew: from then on they hold nothing."""
        if not found.dropped:
            return ()
        with EventFile(self.folder / ev.FILE_NAME) as file:
            events = Events(self.id, self.clock, self.masker, [file, ConsoleReport(self.options.log)])
            undoers = Holdings(regions, self.clock).undoers()
            held = undo(journal, undoers, events, which=lambda claim: claim.stage in found.dropped)
        if not held:
            journal.note("dropped", stages=list(found.dropped))
        return held

    def _names(self) -> tuple[str, ...]:
        return tuple(one.checked().name for one in self.loaded)

    def _planned(self, stack: ExitStack, regions: Regions, region: str | None) -> tuple[Graph, list[Baked]]:
        connections = Connections()
        stack.callback(connections.close)
        tools = Tools(
            regions,
            connections,
            CopyLimits(),
            self.folder,
            self.id,
            self._recipients,
            is_local=self.chosen.local is not None,
            offline=self._offline(),
            scans=self.folder.parents[1] / "scans",
        )
        return plan(self.loaded, tools, region=region_of(region, regions))

    def _offline(self) -> Offline | None:
        """What reads the disks that the local cloud captures."""
        if not self.chosen.local:
            return None
        from imagepipe.cli.local import open_store
        from imagepipe.local.disks import Disks
        from imagepipe.local.offline import look_at

        return Offline(Disks(open_store(Path(self.chosen.local)).disks).snapshot_path, look_at)

    def _run(
        self,
        stack: ExitStack,
        graph: Graph,
        baked: Sequence[Baked],
        journal: Journal,
        regions: Regions,
        *,
        finished: Mapping[str, Any] | None = None,
    ) -> Outcome:
        sinks: list[Sink] = [
            stack.enter_context(EventFile(self.folder / ev.FILE_NAME)),
            ConsoleReport(self.options.log),
        ]
        if self.options.junit:
            self.junit = JUnitReport(self.options.junit, [_suite(one, graph) for one in baked])
            sinks.append(self.junit)
        events = Events(self.id, self.clock, self.masker, sinks)
        events.emit(ev.RunStarted(*events.stamp(), self._names()))
        gc.freeze()
        gc.enable()
        self.cancel.also(streams.hurry)
        keep_on_failure = self.options.keep_on_failure
        with Heartbeat(journal, regions, self.clock) as heart, _limit(self.cancel, self.options.timeout):
            outcome = execute(
                graph,
                journal=journal,
                events=events,
                cancel=self.cancel,
                clock=self.clock,
                undoers=Holdings(regions, self.clock).undoers(),
                keep_on_failure=keep_on_failure is not None,
                finished=finished,
                groups=[one.stages for one in baked] if self.options.keep_going else (),
            )
        if keep_on_failure is not None and not outcome.ok:
            heart.beat(self.clock.now() + keep_on_failure)
        return outcome

    def _recipients(self, one: LoadedSpec, region: str, home: str) -> Recipients:
        from imagepipe.cli.local import open_store

        local = open_store(Path(self.chosen.local)).ec2_certificate if self.chosen.local else None
        return Seals(os.environ, self.folder.parents[1], local).recipients(one, region, home=home)


@contextmanager
def _limit(cancel: Cancel, timeout: timedelta | None) -> Iterator[None]:
    """Ask the run to stop, if it goes on for so long."""
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


def _suite(one: Baked, graph: Graph) -> Suite:
    return Suite(one.spec, tuple((stage, graph.stages[stage].title()) for stage in one.tests), one.stages)


@dataclass
class Signals:
    """What the first Ctrl-C or SIGTERM does, and that there was one."""

    has_begun: bool = False
    """Whether the run may hold something. Before that (the base image of the local cloud) it can end at once."""
    came: bool = False


def _write_to_terminal(words: str) -> None:
    with suppress(OSError):
        os.write(2, words.encode())


@contextmanager
def handled_signals(cancel: Cancel) -> Iterator[Signals]:
    """While inside, a first Ctrl-C, SIGTERM or closed terminal stops the run in order, a second leaves at once."""
    signals = Signals()

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if signals.came:
            # The journal is true at every moment: `clean` finds whatever is held.
            words = "\nleaving at once; `imagepipe clean --all` cleans up the rest\n"
            told = threading.Thread(target=_write_to_terminal, args=(words,), daemon=True)
            told.start()
            told.join(0.5)
            os._exit(130)
        signals.came = True
        if not signals.has_begun:
            raise KeyboardInterrupt
        # In threads: a handler runs in the middle of anything, perhaps inside the very locks that these take. In two:
        # the terminal may be gone, or held by Ctrl-S, and then the write fails or waits, and the cancel must not.
        threading.Thread(target=cancel.set, args=(f"got {name}",), daemon=True).start()
        words = f"\n{name}: stopping and cleaning up everything; again to leave at once\n"
        threading.Thread(target=_write_to_terminal, args=(words,), daemon=True).start()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup: a terminal that closes is to change nothing
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ended(run: Run, outcome: Outcome, baked: Sequence[Baked]) -> int:
    """Print how the run ended; return the exit code."""
    gc.freeze()  # the process is about to end
    if outcome.ok:
        _print(run, outcome, baked)
        code = 0
        if outcome.held:
            _say_held(outcome, run.id)
            code = UndoFailed.exit_code
    else:
        if run.options.keep_going and not outcome.cancelled:
            _print(run, outcome, baked)
        code = _explain(outcome, run, baked)
    for stage in outcome.stuck:
        click.echo(f"{stage} did not end; this process leaves it behind", err=True)
    if run.junit and run.junit.problem:
        click.echo(f"error: writing {run.options.junit}: {run.junit.problem.strerror}", err=True)
        code = code or ImagepipeError.exit_code
    if streams.result_is_lost():
        click.echo(f"standard output did not take the result: imagepipe show {run.id} prints it", err=True)
    return code


def _print(run: Run, outcome: Outcome, baked: Sequence[Baked]) -> None:
    """Print the images of the specs that succeeded."""
    rows = [(one.spec, image) for one in baked for image in outcome.outputs.get(one.images.stage, ())]
    if run.options.as_json:
        result: dict[str, object] = {"run": run.id, "images": [_image(spec, image) for spec, image in rows]}
        if not outcome.ok:
            result["failed"] = [one.spec for one in baked if one.images.stage not in outcome.outputs]
        click.echo(json.dumps(result))
        return
    click.echo("")
    for spec, image in rows:
        click.echo(f"{image.id}  {image.region:<14}  {image.name}  ({spec})")


def _image(spec: str, image: Image) -> dict[str, object]:
    return {
        "spec": spec,
        "region": image.region,
        "image_id": image.id,
        "name": image.name,
        "snapshots": list(image.snapshots),
        "bundle": image.bundle,
    }


def _explain(outcome: Outcome, run: Run, baked: Sequence[Baked]) -> int:
    """Print why it failed and what is left; return the exit code of the cause."""
    for failure in outcome.failures:
        error = failure.error
        click.echo(f"error: {run.masker.mask(f'{failure.stage}: {error}')}", err=True)
        if isinstance(error, ImagepipeError) and error.hint:
            click.echo(f"  hint: {run.masker.mask(error.hint)}", err=True)
    for one in [] if run.options.keep_going and not outcome.cancelled else baked:
        for image in outcome.outputs.get(one.images.stage, outcome.outputs.get(one.kept.stage, ())):
            click.echo(f"finished before that, and kept: {image.id} in {image.region} ({one.spec})", err=True)
    if outcome.held:
        _say_held(outcome, run.id)
    if outcome.cancelled:
        at_work = f"; at work: {', '.join(outcome.interrupted)}" if outcome.interrupted else ""
        click.echo(f"error: {run.cancel.reason}{at_work}", err=True)
        return 130
    if run.options.keep_on_failure is not None:
        _say_how_to_get_in(outcome, run)
    cause = outcome.failures[0].error
    return cause.exit_code if isinstance(cause, ImagepipeError) and cause.exit_code != 1 else StageFailed.exit_code


def _say_held(outcome: Outcome, run_id: str) -> None:
    for held in outcome.held:
        click.echo(f"still held: {held}", err=True)
    if any(isinstance(each.error, CloudError) and each.error.code in EXPIRED for each in outcome.failures):
        click.echo(f"With credentials that are good: imagepipe resume {run_id} goes on", err=True)
    click.echo(f"Later: imagepipe clean {run_id}", err=True)


def _say_how_to_get_in(outcome: Outcome, run: Run) -> None:
    from imagepipe.values import Reachable

    held = {claim.id for claim in read(run.folder).open_claims()}
    machines = {o.endpoint: o for o in outcome.outputs.values() if isinstance(o, Reachable) and o.instance.id in held}
    known_hosts = run.folder / "known_hosts"
    known_hosts.write_text("".join(dict.fromkeys(_known(end) for end in machines)), encoding="ascii")
    for endpoint, machine in machines.items():
        command = shlex.join(_ssh(endpoint, known_hosts))
        click.echo(f"kept: {machine.instance.id} in {machine.instance.region}: {command}", err=True)
    click.echo(f"everything of this run is kept, and costs; when you are done: imagepipe clean {run.id}", err=True)


def _known(endpoint: Endpoint) -> str:
    """Lines of known_hosts: the machine's, and those of what is in between."""
    before = _known(endpoint.via) if endpoint.via else ""
    if endpoint.host_key is None:
        return before
    host = endpoint.host if endpoint.port == 22 else f"[{endpoint.host}]:{endpoint.port}"
    return f"{before}{host} {endpoint.host_key}\n"


def _ssh(endpoint: Endpoint, known_hosts: Path) -> list[str]:
    words = ["ssh", "-i", endpoint.private_key, "-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known_hosts}"]
    if endpoint.via:
        # -J would log in to the bastion with the keys of the command line, which are the machine's.
        words += ["-o", f"ProxyCommand={shlex.join([*_ssh(endpoint.via, known_hosts), '-W', '%h:%p'])}"]
    words += ["-p", str(endpoint.port)] if endpoint.port != 22 else []
    return [*words, f"{endpoint.user}@{endpoint.host}"]
