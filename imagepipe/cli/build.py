"""`imagepipe build`: from specs to images, or to an error and nothing left behind."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.closing import ended
from imagepipe.cli.cloud import CloudTarget, chosen_cloud, opened
from imagepipe.cli.options import (
    KeepingCommand,
    check_region,
    cloud_options,
    found_specs,
    given,
    keep_option,
    timeout_option,
    unknown_variables,
    variable_options,
)
from imagepipe.cli.run import Run, RunOptions, handled_signals
from imagepipe.clock import Clock, SystemClock
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import ImagepipeError, SpecError, UsageError
from imagepipe.report.junit import write_error
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.not_yet import not_yet
from imagepipe.spec.variables import Given, given_value
from imagepipe.wiring.certificates import check_bundle_files


@click.command(
    cls=KeepingCommand,
    epilog="""\b
Examples:
  imagepipe build web-server.yaml --local
  imagepipe build specs/web-server.yaml --var greeting=hi --region eu-west-1
  imagepipe build specs/ --json >images.json
  imagepipe build web-server.yaml --junit tests.xml
""",
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@click.option("--local", "is_local", is_flag=True, help="Bake on the local cloud; no account is needed.")
@variable_options
@cloud_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on standard output; the log goes to standard error."
)
@click.option(
    "--junit",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write JUnit XML with a case for each build and each test, whether or not they succeed.",
)
@click.option(
    "--keep-going",
    is_flag=True,
    help="With several specs: a failure stops and cleans up only its own spec. Without this option, the first failure "
    "stops the whole run and deletes every image that is not finished.",
)
@timeout_option
@keep_option
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
    keep_going: bool,
    timeout: timedelta | None,
    keep_on_failure: timedelta | None,
) -> int:
    """Bake the images of specs, given by path, by folder, or by the name of a file in specs/.

    Exit code 0 when every image is available in every region. After a failure, Ctrl-C or SIGTERM, everything that the
    build created is deleted. A second Ctrl-C exits at once; `imagepipe clean` then deletes the rest.
    """
    log = sys.stderr if as_json else sys.stdout
    options = RunOptions(log, as_json, junit, timeout, keep_on_failure, keep_going)
    with _reported(junit):
        chosen = chosen_cloud(is_local=is_local, profile=profile, endpoint_url=endpoint_url, role=role)
        return _build_images(specs, given(variables, var_files), chosen, region, options)


def _build_images(
    specs: Sequence[str], values: Given, chosen: CloudTarget, region: str | None, options: RunOptions
) -> int:
    """Load the specs, open the cloud, run the graph and print how it ended; return the exit code."""
    clock = SystemClock()
    run_id = secrets.token_hex(4)
    files = found_specs(specs)
    loaded = load_buildable(files, values, _build(run_id, files, clock))
    check_files_of_bundles(loaded, region, is_local=chosen.local is not None)
    if region:
        check_region(region, loaded)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(handled_signals(cancel))
        regions = stack.enter_context(opened(chosen, region=region, clock=clock))
        signals.has_begun = True
        cancel.check()
        run = Run(run_id, clock, cancel, chosen.with_account(regions), loaded, options)
        outcome, baked = run.execute(regions, region, _record(files, values, loaded, region))
        return ended(run, outcome, baked)


def _record(files: Sequence[Path], values: Given, loaded: Sequence[LoadedSpec], region: str | None) -> dict[str, Any]:
    """What another process needs to build the same graph; a sensitive variable's value is not among it."""
    variables: dict[str, Any] = {}
    for one in loaded:
        for name, variable in one.checked().variables.items():
            if not variable.sensitive and (value := given_value(name, variable, values)) is not None:
                variables[name] = value
    for one in loaded:
        for name, variable in one.checked().variables.items():
            if variable.sensitive:
                variables.pop(name, None)
    return {"files": [str(file.resolve()) for file in files], "variables": variables, "region": region}


def load_buildable(files: Sequence[Path], chosen: Given, build: Build) -> list[LoadedSpec]:
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


def check_files_of_bundles(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool) -> None:
    """Raise SpecError now where a bundle could not be signed, or not be made for EC2."""
    problems = [
        problem
        for one in loaded
        for problem in check_bundle_files(one, environment=os.environ, is_local=is_local, region=region)
    ]
    if problems:
        raise SpecError(problems)


@contextmanager
def _reported(junit: Path | None) -> Iterator[None]:
    """Keep the JUnit file true: an error from the start, and the cause of whatever ends the build before its run.

    Raises UsageError where the file could not be written after an hour's build.
    """
    if junit is None:
        yield
        return
    _begin_report(junit)
    try:
        yield
    except BaseException as error:
        words = str(error) if isinstance(error, ImagepipeError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # the error itself is what the user must see
            write_error(junit, "cancelled" if isinstance(error, KeyboardInterrupt) else words)
        raise


def _begin_report(path: Path) -> None:
    if path.is_fifo():
        raise UsageError(f"--junit {path}: is a named pipe, which would be waited for", hint="name a file")
    try:
        if path.is_file() or not path.exists():
            write_error(path, "the build did not finish: its process was killed, or is still running")
    except OSError as error:
        folder = path.absolute().parent
        hint = None if folder.is_dir() else f"the folder {folder} does not exist"
        raise UsageError(f"--junit {path}: cannot be written: {error.strerror}", hint=hint) from error


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
