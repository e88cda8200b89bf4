"""`imagepipe resume`: a run whose process died goes on where it was, in this one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import click

from imagepipe.cli.build import check_files_of_bundles, load_buildable
from imagepipe.cli.closing import ended
from imagepipe.cli.cloud import CloudTarget, opened
from imagepipe.cli.options import KeepingCommand, given, keep_option, timeout_option, variable_options
from imagepipe.cli.run import Run, RunOptions, handled_signals
from imagepipe.cli.run_store import folder_of
from imagepipe.clock import SystemClock
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.journal import JournalState, read
from imagepipe.errors import UsageError
from imagepipe.spec.load import Build


@click.command(
    cls=KeepingCommand,
    epilog="""\b
Examples:
  imagepipe resume 7f3a91c2
  imagepipe resume 7f3a91c2 --dry-run
  DEPLOY_TOKEN=… imagepipe resume 7f3a91c2
""",
)
@click.argument("run", metavar="RUN")
@variable_options
@click.option("--dry-run", is_flag=True, help="Print where the run would resume, and change nothing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output; the log goes to standard error."
)
@timeout_option
@keep_option
def resume(
    run: str,
    variables: Sequence[str],
    var_files: Sequence[Path],
    dry_run: bool,
    as_json: bool,
    timeout: timedelta | None,
    keep_on_failure: timedelta | None,
) -> int:
    """Resume a run whose process died. RUN is its id, or the start of it.

    Finished stages are not repeated. An instance that no longer exists is launched again, and so is the machine of a
    step that was interrupted, unless the step has `idempotent: true`. Variables keep the values of the first process;
    sensitive ones were not stored, so pass them again by environment, --var or --var-file.
    """
    folder = folder_of(run)
    past = read(folder)
    _check(past)
    clock = SystemClock()
    stored = past.run.given
    values = given(variables, var_files)
    values = replace(values, command_line={**_texts(stored["variables"]), **values.command_line})
    build = Build(past.run.build["id"], past.run.build["timestamp"], past.run.build["git_sha"])
    loaded = load_buildable([Path(file) for file in stored["files"]], values, build)
    chosen = CloudTarget.of(past.run.cloud)
    region = stored["region"]
    check_files_of_bundles(loaded, region, is_local=chosen.local is not None)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(handled_signals(cancel))
        regions = stack.enter_context(opened(chosen, region=region, clock=clock))
        chosen.check_account(regions)
        signals.has_begun = True
        cancel.check()
        log = sys.stderr if as_json else sys.stdout
        options = RunOptions(log, as_json=as_json, timeout=timeout, keep_on_failure=keep_on_failure)
        going_on = Run(past.run.id, clock, cancel, chosen, loaded, options)
        result = going_on.resume(regions, region, dry_run=dry_run)
        return 0 if result is None else ended(going_on, *result)


def _check(past: JournalState) -> None:
    """Raise UsageError where there is nothing to go on with."""
    id = past.run.id
    if past.is_alive:
        raise UsageError(f"run {id} is going on in another process", hint="wait for it, or end that process first")
    if past.outcome == "succeeded" and not past.open_claims():
        raise UsageError(f"run {id} has succeeded: there is nothing left to do")
    if past.outcome in ("failed", "cancelled") and not past.open_claims():
        raise UsageError(f"run {id} {past.outcome}, and everything was cleaned up", hint="build again")
    if not past.run.given:
        raise UsageError(
            f"run {id} is of a version of imagepipe that could not resume",
            hint=f"imagepipe clean {id} deletes what it holds",
        )


def _texts(variables: object) -> dict[str, str]:
    """Values as --var has them."""
    assert isinstance(variables, dict)
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in variables.items()}
