"""`imagepipe run-bake`: the process in which a worker bakes one spec, or cleans up after it. Not for people.

It reads a request from standard input, and prints the images as `build --format json` does. At the end of its standard
input the worker is dead, and this process ends at once, as by `kill -9`: another worker resumes the run.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.build_values import record_for_resume
from imagepipe.cli.clean import CleanReport, clean_run
from imagepipe.cli.cloud import CloudTarget, open_cloud, recorded_target, region_of
from imagepipe.cli.end import print_end
from imagepipe.cli.loading import check_this_computer
from imagepipe.cli.options import CloudOptions, state_folder
from imagepipe.cli.run import Run, stopped_by_signals
from imagepipe.cli.run_options import RunOptions
from imagepipe.cli.state import open_bucket_store
from imagepipe.clock import Clock, SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.dataclass import dataclass
from imagepipe.deletion import delete_tree
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.journal import JournalState, read
from imagepipe.engine.journal_store import CLOSING, JournalStore, RunInProgress
from imagepipe.errors import SpecError, StageError, UndoFailed
from imagepipe.reuse import Examiner
from imagepipe.spec.find import PROJECT_FILE
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.state.bucket import StateBucket
from imagepipe.state.lease import LEASE_SECONDS
from imagepipe.state.location import StateLocation
from imagepipe.state.packages import Package, read_package, unpack
from imagepipe.temporal.messages import AGAIN
from imagepipe.wiring.existing import Existing, Settled
from imagepipe.wiring.family import bases_first

PREFIX = "specs-"
"""Beginning of the names of folders with unpacked specs."""
PATIENCE = 1.5 * LEASE_SECONDS
"""Seconds to wait for the lease of a worker that died."""


@dataclass(frozen=True, slots=True)
class Request:
    """The part of a request that this process needs; `temporal/messages.py` has the whole."""

    state: StateLocation
    cloud: CloudTarget
    package: str
    spec: str
    run: str
    bases: Mapping[str, Mapping[str, str]]

    @classmethod
    def read(cls) -> Request:
        """Read a request from standard input."""
        row = json.loads(sys.stdin.buffer.readline())
        state = StateLocation.parse(row["state"], row["kms_key"])
        cloud = recorded_target(row["cloud"], CloudOptions())
        return cls(state, cloud, row["package"], row["job"]["spec"], row["job"]["run"], row["bases"])


@click.command(hidden=True)
@click.argument("task", type=click.Choice(["bake", "clean"]))
def run_bake(task: str) -> int:
    """Bake one spec for a worker, or clean up after it."""
    request, clock = Request.read(), SystemClock()
    threading.Thread(target=_end_with_worker, name="worker's life", daemon=True).start()
    cancel = Cancel(clock)
    try:
        with (
            stopped_by_signals(cancel, rest="the worker cleans up the rest") as signals,
            resumable_after_signals(),
            open_bucket_store(request.state, request.cloud, clock) as (bucket, store),
        ):
            signals.has_begun = True
            if task == "clean":
                store.abandon(request.run)
            past = past_of(store, request.run, cancel, clock)
            cancel.check()
            if task == "clean":
                return _clean(store, request.run, past)
            return _bake(request, bucket, store, past, cancel, clock)
    except RunInProgress as error:
        click.echo(f"error: {error}", err=True)
        return AGAIN


@contextmanager
def resumable_after_signals() -> Iterator[None]:
    """End at once at SIGTERM or SIGHUP: systemd stops all processes of a worker, and another worker resumes the run.

    SIGINT is the cancel of a build.
    """
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: os._exit(AGAIN)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_with_worker() -> None:
    # From the descriptor: a thread that holds sys.stdin's own lock would abort the interpreter at its exit.
    while os.read(0, 4096):
        pass
    os._exit(AGAIN)


def past_of(store: JournalStore, run: str, cancel: Cancel, clock: Clock) -> JournalState | None:
    """Wait until no other process has the run; return what is known of it, or None if nobody has begun it.

    Raises RunInProgress if it lives, even if it has written nothing yet.
    """
    end = clock.monotonic() + PATIENCE
    while True:
        try:
            store.check_free(run)
            return read(store, run) if store.journal(run).records else None
        except RunInProgress:
            if clock.monotonic() > end:
                raise
        cancel.sleep(1.0)


def _clean(store: JournalStore, run: str, past: JournalState | None) -> int:
    if past is None or not past.open_claims():
        return 0
    report = CleanReport("json", is_dry_run=False)
    has_failed = clean_run(store, run, report, CloudOptions())
    report.end(has_failed=has_failed)
    return UndoFailed.exit_code if has_failed else 0


def _bake(
    request: Request,
    bucket: StateBucket,
    store: JournalStore,
    past: JournalState | None,
    cancel: Cancel,
    clock: Clock,
) -> int:
    """Bake the spec, resume its run, or print how that run ended; return the exit code."""
    if past is not None and past.outcome in ("failed", "cancelled"):
        closing = store.document(request.run, CLOSING) or b"error: the run failed in another worker\n"
        click.echo(closing.decode("utf-8", "replace"), err=True, nl=False)
        return StageError.exit_code
    package = read_package(bucket, request.package)
    with unpacked(bucket, package) as folder:
        values = package.values
        own = values["specs"][request.spec]
        given = _given(own)
        build = Build(request.run, values["timestamp"], values["git_sha"])
        try:
            loaded = family_of(request.spec, folder, values, given, build)
        except SpecError as error:
            raise where_the_client_has_it(error, folder, package) from error
        spec = loaded[0]
        region = values["region"]
        check_this_computer([spec], region, is_local=request.cloud.local is not None)
        options = RunOptions("json", timeout=_seconds(values["timeout"]))
        with open_cloud(request.cloud, region=region, clock=clock) as regions:
            request.cloud.check_account(regions)
            existing = {key: Existing(images, is_published=True) for key, images in request.bases.items()}
            if past is None:
                examiner = Examiner(regions, region_of(region, regions), clock.now())
                existing = examiner.unchanged(bases_first(loaded), force=values["force"], known=existing)
                cancel.check()
            else:
                existing = {key: Existing.from_record(row) for key, row in past.run.given["existing"].items()}
            run = Run(request.run, store, clock, cancel, request.cloud, loaded, options, Settled(existing))
            return _execute(run, regions, region, past, _record(package, given, loaded, region, existing))


def _execute(
    run: Run, regions: Regions, region: str | None, past: JournalState | None, record: Mapping[str, Any]
) -> int:
    if past is None:
        outcome, baked = run.execute(regions, region, record)
    else:
        resumed = run.resume(regions, region, dry_run=False)
        assert resumed is not None, "it is no dry run"
        outcome, baked = resumed
    code = print_end(run, outcome, baked)
    return AGAIN if run.is_lost else code


@contextmanager
def unpacked(bucket: StateBucket, package: Package) -> Iterator[Path]:
    """Unpack into a folder of our own, whose parents only we and root can write: specs use what parents have."""
    place = state_folder().parent / "packages"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _folder_of_this_process(place) as root:
        unpack(bucket, package, root)
        if not os.path.lexists(root / PROJECT_FILE):
            (root / PROJECT_FILE).touch()  # or the search for a project would go on above
        yield root


@contextmanager
def _folder_of_this_process(place: Path) -> Iterator[Path]:
    """Make a folder that is locked while this process lives, and delete those of processes that were killed."""
    with ExitStack() as stack:
        with (place / "lock").open("w") as making:  # nobody takes a folder that is not locked yet for a dead one's
            fcntl.flock(making, fcntl.LOCK_EX)
            for folder in place.glob(f"{PREFIX}*"):
                _delete_if_dead(folder)
            root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place)).resolve()
            stack.enter_context(_locked(root))
        try:
            yield root
        finally:
            _delete(root)


def _delete_if_dead(folder: Path) -> None:
    with suppress(OSError), _locked(folder):
        _delete(folder)


def _delete(folder: Path) -> None:
    for path, _, _ in os.walk(folder):
        os.chmod(path, 0o700)  # noqa: PTH101 - folders of a package may be read-only
    delete_tree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder for the block. Raises BlockingIOError if another process has the lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _given(own: Mapping[str, Any]) -> Given:
    """Return the variables of a spec: the client's values, and the worker's environment for sensitive ones alone."""
    environment = {name: value for name, value in os.environ.items() if name in own["environment"]}
    return Given({}, own["variables"], environment)


def family_of(key: str, folder: Path, values: Mapping[str, Any], given: Given, build: Build) -> list[LoadedSpec]:
    """Load a spec and its bases. Raises SpecError.

    Specs beside them may have problems here, such as a secret that only the workers of another queue have.
    """
    found = load([folder / file for file in values["specs"][key]["files"]], given, build=build)
    spec = next((each for each in found if str(each.key) == key), None)
    family = found if spec is None else [spec, *spec.bases()]
    refuse(family)
    assert spec is not None, "a spec is not found only if its file has problems"
    for each in family:
        each.is_named = str(each.key) in values["named"]
    return family


def where_the_client_has_it(error: SpecError, folder: Path, package: Package) -> SpecError:
    """Return an error whose problems name the client's files, instead of those of this folder."""
    own, clients = f"{folder}/", f"{package.root.rstrip('/')}/"
    return SpecError([replace(each, file=each.file.replace(own, clients)) for each in error.problems])


def _record(
    package: Package, given: Given, loaded: list[LoadedSpec], region: str | None, existing: Mapping[str, Existing]
) -> dict[str, Any]:
    """Return the values for `imagepipe resume`: it finds the specs where the client had them, or in its own folder."""
    files = [str(Path(package.root) / file) for file in package.values["specs"][str(loaded[0].key)]["files"]]
    record = record_for_resume(given, loaded, region, existing)
    return {**record, "files": files, "folder": package.values["folder"]}


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)
