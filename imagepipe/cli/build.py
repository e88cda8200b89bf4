"""`imagepipe build`: from specs to images, or to an error and nothing left behind."""

# ruff: noqa: E402
from __future__ import annotations

import gc

# Libraries, and botocore's model of EC2, are objects by the hundred thousand that live until the end; the collector
# would walk them again and again. It is on again, without them, before the first stage runs.
gc.disable()

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import click

from imagepipe.bundle.manifest import Recipients
from imagepipe.bundling import Seals, check_bundle_files
from imagepipe.capture.hygiene import Offline
from imagepipe.cli.cloud import Chosen, chosen_cloud, opened, region_of
from imagepipe.cli.given import (
    check_region,
    cloud_options,
    found_specs,
    given,
    state_folder,
    unknown_variables,
    variable_options,
)
from imagepipe.clock import Clock, SystemClock, iso
from imagepipe.cloud.ec2 import Regions
from imagepipe.communicator.ssh import Connections
from imagepipe.engine import events as ev
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.events import EventFile, Events, Sink
from imagepipe.engine.executor import Outcome, execute
from imagepipe.engine.graph import Graph
from imagepipe.engine.journal import Journal, RunRecord, read
from imagepipe.errors import ImagepipeError, SpecError, StageFailed, UndoFailed, UsageError
from imagepipe.holdings import Holdings
from imagepipe.masking import Masker
from imagepipe.pipeline import Baked, Tools, plan
from imagepipe.publish.copy import CopyLimits
from imagepipe.report.console import ConsoleReport
from imagepipe.report.junit import JUnitReport, Suite
from imagepipe.spec.load import Build, LoadedSpec, load, refuse
from imagepipe.spec.not_yet import not_yet
from imagepipe.spec.variables import Given
from imagepipe.values import Endpoint, Image


@click.command(
    epilog="""\b
Examples:
  imagepipe build web-server.yaml --local
  imagepipe build specs/web-server.yaml --var greeting=hi --region eu-west-1
  imagepipe build specs/ --json >images.json
  imagepipe build web-server.yaml --junit tests.xml
"""
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--local", "is_local", is_flag=True, help="Bake on the local cloud: no account is needed.")
@variable_options
@cloud_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output; the log goes to standard error."
)
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the tests' results as JUnit XML, also after a failure.",
)
@click.option("--keep-on-failure", is_flag=True, help="After a failure, keep everything and say how to get in.")
def build(
    specs: Sequence[str],
    is_local: bool,
    variables: Sequence[str],
    var_files: Sequence[Path],
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    role: str | None,
    as_json: bool,
    junit: Path | None,
    keep_on_failure: bool,
) -> int:
    """Bake the images of specs: by path, by folder, or by the name of a file in specs/.

    Exit code 0 when every image is there, in every region. After a failure, Ctrl-C or SIGTERM everything that was
    made is given back; a second Ctrl-C leaves at once, and `imagepipe clean` gives back what is left.
    """
    chosen = chosen_cloud(is_local=is_local, profile=profile, endpoint_url=endpoint_url, role=role)
    clock = SystemClock()
    run_id = secrets.token_hex(4)
    files = found_specs(specs)
    _check_junit(junit)
    loaded = _loaded(files, given(variables, var_files), _build(run_id, files, clock))
    _check_bundle_files(loaded, region, is_local=is_local)
    if region:
        check_region(region, loaded)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(_signals(cancel))
        regions = stack.enter_context(opened(chosen, region=region, clock=clock))
        signals.has_begun = True
        cancel.check()
        run = _Run(
            run_id,
            clock,
            cancel,
            chosen.with_account(regions),
            loaded,
            log=sys.stderr if as_json else sys.stdout,
            junit=junit,
        )
        outcome, baked = run.execute(regions, region, keep_on_failure=keep_on_failure)
        gc.freeze()  # the process is about to end
        if not outcome.ok:
            return _explain(outcome, run, baked, keep_on_failure=keep_on_failure)
        _print(run_id, outcome, baked, as_json=as_json)
        if outcome.held:
            _say_held(outcome, run_id)
            return UndoFailed.exit_code
        return 0


class _Run:
    """One run: its folder, journal, events and tools."""

    def __init__(
        self,
        run_id: str,
        clock: Clock,
        cancel: Cancel,
        chosen: Chosen,
        loaded: Sequence[LoadedSpec],
        *,
        log: IO[str],
        junit: Path | None,
    ) -> None:
        self.id = run_id
        self.clock = clock
        self.cancel = cancel
        self.chosen = chosen
        self.loaded = loaded
        self.folder = state_folder() / run_id
        self.masker = Masker(secret for one in loaded for secret in one.secrets)
        self._log = log
        self._junit = junit

    def execute(self, regions: Regions, region: str | None, *, keep_on_failure: bool) -> tuple[Outcome, list[Baked]]:
        """Build the graph and run it."""
        names = tuple(one.checked().name for one in self.loaded)
        with ExitStack() as stack:
            connections = Connections()
            stack.callback(connections.close)
            is_local = self.chosen.local is not None
            tools = Tools(
                regions,
                connections,
                CopyLimits(),
                self.folder,
                self.id,
                self._recipients,
                is_local=is_local,
                offline=self._offline(),
            )
            graph, baked = plan(self.loaded, tools, region=region_of(region, regions))
            build_names = {key: str(value) for key, value in self.loaded[0].names["build"].items()}
            record = RunRecord(self.id, iso(self.clock.now()), names, build_names, self.chosen.record())
            journal = Journal.create(self.folder, record, self.clock)
            stack.callback(journal.close)
            sinks: list[Sink] = [stack.enter_context(EventFile(self.folder / "events.jsonl")), ConsoleReport(self._log)]
            if self._junit:
                sinks.append(JUnitReport(self._junit, [_suite(one, graph) for one in baked]))
            events = Events(self.id, self.clock, self.masker, sinks)
            events.emit(ev.RunStarted(*events.stamp(), names))
            gc.freeze()
            gc.enable()
            outcome = execute(
                graph,
                journal=journal,
                events=events,
                cancel=self.cancel,
                clock=self.clock,
                undoers=Holdings(regions, self.clock).undoers(),
                keep_on_failure=keep_on_failure,
            )
            return outcome, baked

    def _offline(self) -> Offline | None:
        """What reads the disks that the local cloud captures."""
        if not self.chosen.local:
            return None
        from imagepipe.cli.local import open_store
        from imagepipe.local.disks import Disks
        from imagepipe.local.offline import look_at

        return Offline(Disks(open_store(Path(self.chosen.local)).disks).snapshot_path, look_at)

    def _recipients(self, one: LoadedSpec, region: str, home: str) -> Recipients:
        from imagepipe.cli.local import open_store

        local = open_store(Path(self.chosen.local)).ec2_certificate if self.chosen.local else None
        return Seals(os.environ, self.folder.parents[1], local).recipients(one, region, home=home)


def _loaded(files: Sequence[Path], chosen: Given, build: Build) -> list[LoadedSpec]:
    """Specs that can be built. Raises SpecError with all problems, and those of what cannot be built yet."""
    loaded = load(files, chosen, build=build)
    for one in loaded:
        for problem in one.problems:
            if problem.severity == "warning":
                click.echo(problem.text(), err=True)
    refuse(loaded)
    unknown_variables([frozenset(one.checked().variables) for one in loaded], chosen)
    if problems := [problem for one in loaded for problem in not_yet(one)]:
        raise SpecError(problems)
    return loaded


def _check_bundle_files(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool) -> None:
    """Raise SpecError now where a bundle could not be signed, or not be made for EC2."""
    problems = [
        problem
        for one in loaded
        for problem in check_bundle_files(one, environment=os.environ, is_local=is_local, region=region)
    ]
    if problems:
        raise SpecError(problems)


def _suite(one: Baked, graph: Graph) -> Suite:
    return Suite(one.spec, tuple((stage, graph.stages[stage].title()) for stage in one.tests))


def _check_junit(path: Path | None) -> None:
    """Raise UsageError now where the report could not be written after an hour's build."""
    if path is None:
        return
    folder = path.absolute().parent
    if not os.access(path if path.exists() else folder, os.W_OK):
        hint = None if folder.is_dir() else f"there is no folder {folder}"
        raise UsageError(f"--junit {path}: cannot be written", hint=hint)


def _build(run_id: str, files: Sequence[Path], clock: Clock) -> Build:
    timestamp = clock.now().strftime("%Y%m%dT%H%M%SZ")
    return Build(run_id, timestamp, _git_sha(files[0].resolve().parent))


def _git_sha(folder: Path) -> str:
    """The commit that the specs are at; empty outside a git checkout."""
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


@dataclass
class _Signals:
    """What the first Ctrl-C or SIGTERM does, and that there was one."""

    has_begun: bool = False
    """Whether the run may hold something. Before that (the base image of the local cloud) it can end at once."""
    came: bool = False


@contextmanager
def _signals(cancel: Cancel) -> Iterator[_Signals]:
    """While inside, the first Ctrl-C or SIGTERM stops the run in order, and the second leaves at once."""
    signals = _Signals()

    def stop(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if signals.came:
            # The journal is true at every moment: what is held is found by `clean`.
            os.write(2, b"\nleaving at once; `imagepipe clean --all` gives back what is left\n")
            os._exit(130)
        signals.came = True
        if not signals.has_begun:
            raise KeyboardInterrupt
        os.write(2, f"\n{name}: stopping and giving everything back; again to leave at once\n".encode())
        # In a thread: a handler runs in the middle of anything, perhaps inside the very locks that this takes.
        threading.Thread(target=cancel.set, args=(f"got {name}",), daemon=True).start()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _print(run_id: str, outcome: Outcome, baked: Sequence[Baked], *, as_json: bool) -> None:
    rows = [(one.spec, image) for one in baked for image in outcome[one.images]]
    if as_json:
        click.echo(json.dumps({"run": run_id, "images": [_image(spec, image) for spec, image in rows]}))
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
    }


def _explain(outcome: Outcome, run: _Run, baked: Sequence[Baked], *, keep_on_failure: bool) -> int:
    """Say why it failed and what is left; the exit code of the cause."""
    for failure in outcome.failures:
        error = failure.error
        click.echo(f"error: {run.masker.mask(f'{failure.stage}: {error}')}", err=True)
        if isinstance(error, ImagepipeError) and error.hint:
            click.echo(f"  hint: {run.masker.mask(error.hint)}", err=True)
    for one in baked:
        for image in outcome.outputs.get(one.images.stage, outcome.outputs.get(one.kept.stage, ())):
            click.echo(f"finished before that, and kept: {image.id} in {image.region} ({one.spec})", err=True)
    if outcome.held:
        _say_held(outcome, run.id)
    if outcome.cancelled:
        return 130
    if keep_on_failure:
        _say_how_to_get_in(outcome, run)
    cause = outcome.failures[0].error
    return cause.exit_code if isinstance(cause, ImagepipeError) and cause.exit_code != 1 else StageFailed.exit_code


def _say_held(outcome: Outcome, run_id: str) -> None:
    for held in outcome.held:
        click.echo(f"still held: {held}", err=True)
    click.echo(f"Later: imagepipe clean {run_id}", err=True)


def _say_how_to_get_in(outcome: Outcome, run: _Run) -> None:
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
