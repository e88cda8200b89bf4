"""`imagepipe resume`: continue a run whose process died."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.cloud import open_cloud, recorded_target
from imagepipe.cli.end import print_end
from imagepipe.cli.junit_file import reported_in
from imagepipe.cli.loading import check_this_computer, load_buildable
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    read_variables,
    variable_options,
)
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.report_folder import clear_folder, write_own_report
from imagepipe.cli.run import Run, stopped_by_signals
from imagepipe.cli.run_options import RunCommand, RunOptions, run_options
from imagepipe.cli.run_store import run_of
from imagepipe.cli.state import open_writable_state
from imagepipe.cli.state_options import StateOptions, check_state_access, state_access_options
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.journal import JournalState, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import UsageError
from imagepipe.regular_files import is_file
from imagepipe.spec.load import Build
from imagepipe.wiring.existing import Existing, Settled


@dataclass(frozen=True, slots=True)
class ResumeOptions:
    """Arguments and options of `imagepipe resume`."""

    run: str
    variables: VariableOptions
    dry_run: bool
    run_options: RunOptions
    state: StateOptions
    cloud: CloudOptions


@click.command(
    cls=RunCommand,
    epilog="""\b
Examples:
  imagepipe resume 7f3a91c2
  imagepipe resume 7f3a91c2 --dry-run
  imagepipe resume latest --state s3://our-state/team
  imagepipe resume 7f3a91c2 --format json --junit tests.xml
  DEPLOY_TOKEN=… imagepipe resume 7f3a91c2
""",
)
@click.argument("run", metavar="RUN")
@variable_options
@click.option("--dry-run", is_flag=True, help="Print where the run would resume, and change nothing.")
@run_options
@state_access_options
@pass_options(ResumeOptions)
def resume(options: ResumeOptions) -> int:
    """Resume a run whose process died. RUN is its id, the start of it, or `latest`.

    Finished stages are not repeated. An instance that no longer exists is launched again, and so is the machine of a
    step that was interrupted, unless the step has `idempotent: true`. Variables keep the values of the first process;
    sensitive ones were not stored, so pass them again, in the environment or by --var-file.

    A run in shared state can be resumed on another machine, in a folder with the same specs. A machine whose private
    key is not there is launched again.
    """
    check_state_access(options.state, options.cloud)
    with open_writable_state(options.state, options.cloud, SystemClock()) as store:
        run = run_of(store, options.run)
        past = read(store, run)
        store.check_free(run)
        _check(past)  # first, so that the report of a run that cannot be resumed is not overwritten
        with reported_in(None if options.dry_run else options.run_options.junit):
            clear_folder(None if options.dry_run else options.run_options.report)
            return _resume(options, past, store)


def _resume(options: ResumeOptions, past: JournalState, store: JournalStore) -> int:
    """Load the specs as the first process did, open its cloud and run the rest; return the exit code."""
    clock = SystemClock()
    stored = past.run.given
    values = read_variables(options.variables)
    values = replace(values, files={**stored["variables"], **values.files})
    build = Build(past.run.build["id"], past.run.build["timestamp"], past.run.build.get("git_sha", ""))
    loaded = load_buildable(NamedSpecs(spec_files_of(stored)), values, build)
    loaded = [spec for spec in loaded if str(spec.key) in stored["specs"]]
    existing = _existing(past)
    target = recorded_target(past.run.cloud, options.cloud)
    region = stored["region"]
    check_this_computer(loaded, region, is_local=target.local is not None)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(stopped_by_signals(cancel))
        regions = stack.enter_context(open_cloud(target, region=region, clock=clock))
        target.check_account(regions)
        signals.has_begun = True
        cancel.check()
        resumed = Run(past.run.id, store, clock, cancel, target, loaded, options.run_options, Settled(existing))
        result = resumed.resume(regions, region, dry_run=options.dry_run)
        if result is None:
            return 0
        code = print_end(resumed, *result)
        write_own_report(resumed)
        return code


def _existing(past: JournalState) -> dict[str, Existing]:
    """Return the images of the specs that the run does not bake. Raises UsageError if another version wrote them."""
    try:
        return {key: Existing.from_record(record) for key, record in past.run.given["existing"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"run {past.run.id} cannot be resumed: another version of imagepipe started it",
            hint=f"resume it with that version, or `imagepipe clean {past.run.id}` and build again",
        ) from error


def spec_files_of(stored: Mapping[str, Any]) -> list[Path]:
    """Return the run's spec files, or the same ones under the working folder if the run began in another folder.

    Raises UsageError if they are in neither.
    """
    found = []
    for name in stored["files"]:
        below = os.path.relpath(name, stored.get("folder", "/"))
        here = next((each for each in (Path(name), Path.cwd() / below) if is_file(each)), None)
        if here is None:
            raise UsageError(
                f"the spec {name} of the run was not found, and neither was {Path.cwd() / below}",
                hint="change to a folder with the same specs, as the one in which the run began",
            )
        found.append(here.resolve())
    return found


def _check(past: JournalState) -> None:
    """Raise UsageError if the run cannot be resumed."""
    id = past.run.id
    if past.outcome == "succeeded" and not past.open_claims():
        raise UsageError(f"run {id} has succeeded; nothing is left to do")
    if past.outcome in ("failed", "cancelled") and not past.open_claims():
        raise UsageError(f"run {id} {past.outcome}, and everything was cleaned up", hint="build again")
    if not past.run.given:
        raise UsageError(
            f"run {id} cannot be resumed: it built no spec, or an old version of imagepipe started it",
            hint=f"imagepipe clean {id} deletes what it holds",
        )
