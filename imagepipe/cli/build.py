"""`imagepipe build`: from specs to images, or to an error and nothing left behind."""

# ruff: noqa: E402
from __future__ import annotations

import gc

# Libraries, and botocore's model of EC2, are objects by the hundred thousand that live until the end; the collector
# would walk them again and again. It is on again, without them, before the first stage runs.
gc.disable()

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from imagepipe.bundling import check_bundle_files
from imagepipe.cli.cloud import chosen_cloud, opened
from imagepipe.cli.given import (
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
from imagepipe.cli.running import Run, ended, handled_signals
from imagepipe.clock import Clock, SystemClock
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import SpecError, UsageError
from imagepipe.spec.load import Build, LoadedSpec, load, refuse
from imagepipe.spec.not_yet import not_yet
from imagepipe.spec.variables import Given, given_value


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
    timeout: timedelta | None,
    keep_on_failure: timedelta | None,
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
    values = given(variables, var_files)
    loaded = load_buildable(files, values, _build(run_id, files, clock))
    check_files_of_bundles(loaded, region, is_local=is_local)
    if region:
        check_region(region, loaded)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(handled_signals(cancel))
        regions = stack.enter_context(opened(chosen, region=region, clock=clock))
        signals.has_begun = True
        cancel.check()
        run = Run(
            run_id,
            clock,
            cancel,
            chosen.with_account(regions),
            loaded,
            log=sys.stderr if as_json else sys.stdout,
            junit=junit,
            timeout=timeout,
        )
        record = _record(files, values, loaded, region)
        outcome, baked = run.execute(regions, region, record, keep_on_failure=keep_on_failure)
        return ended(run, outcome, baked, as_json=as_json, keep_on_failure=keep_on_failure)


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
