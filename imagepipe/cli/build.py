"""`imagepipe build`: bake the images of specs, and clean up after a failure."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
from imagepipe.cli.end import print_end
from imagepipe.cli.junit_file import reported_in
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    check_region,
    cloud_options,
    read_variables,
    unknown_variables,
    variable_options,
)
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run import Run, stopped_by_signals
from imagepipe.cli.run_options import KeepingCommand, RunOptions, run_options
from imagepipe.clock import Clock, SystemClock
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import SpecError
from imagepipe.reuse import Examiner
from imagepipe.spec.find import PROJECT_FILE, SUFFIXES
from imagepipe.spec.load import Build, load, refuse
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.not_yet import not_yet
from imagepipe.spec.variables import Given, given_value
from imagepipe.wiring.certificates import check_bundle_files
from imagepipe.wiring.existing import Existing
from imagepipe.wiring.family import bases_first, narrow, select_variants


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """Arguments and options of `imagepipe build`."""

    specs: tuple[str, ...]
    selection: Selection
    force: bool
    variables: VariableOptions
    cloud: CloudOptions
    run_options: RunOptions


@dataclass(frozen=True, slots=True)
class Selection:
    """Options that choose among the specs of the command line."""

    only: tuple[str, ...] = ()
    with_dependents: bool = False


@click.command(
    cls=KeepingCommand,
    epilog="""\b
Examples:
  imagepipe build web-server.yaml --local
  imagepipe build specs/web-server.yaml --var greeting=hi --region eu-west-1
  imagepipe build specs/ --format json >images.json
  imagepipe build specs/family --only runtime --with-dependents
  imagepipe build 'web-server.yaml[release=bookworm]'
  imagepipe build web-server.yaml --junit tests.xml
""",
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@cloud_options
@variable_options
@run_options
@click.option(
    "--only",
    multiple=True,
    metavar="SPEC",
    help="Of all the specs given, build only this one; repeatable. Its bases are reused if nothing has changed.",
)
@click.option("--with-dependents", is_flag=True, help="Also build every spec that is built on one of these.")
@click.option("--force", is_flag=True, help="Bake the specs given even if they say `reuse` and nothing has changed.")
@click.option(
    "--fail-fast",
    is_flag=True,
    help="With several specs: the first failure stops the whole run and deletes every image that is not finished. "
    "Without this option, a failure stops and cleans up only its own spec, and those that are built on it.",
)
@pass_options(BuildOptions)
def build(options: BuildOptions) -> int:
    """Bake the images of specs, given by path, by folder, or by the name of a file in specs/.

    A spec may be a variant of a matrix: web.yaml[release=bookworm]. Bases that are not given are found beside the spec
    or in specs/; they are baked only if their inputs have changed, like specs that say `reuse: unchanged`.

    Exit code 0 when every image is available in every region. After a failure, Ctrl-C or SIGTERM, everything that the
    build created is deleted. A second Ctrl-C exits at once; `imagepipe clean` then deletes the rest.
    """
    with reported_in(options.run_options.junit):
        return _build_images(options)


def _build_images(options: BuildOptions) -> int:
    """Load the specs, open the cloud, run the graph and print how it ended; return the exit code."""
    target, region = cloud_target(options.cloud), options.cloud.region
    values = read_variables(options.variables)
    clock = SystemClock()
    run_id = secrets.token_hex(4)
    named = NamedSpecs.of(options.specs)
    loaded = load_buildable(named, values, _build(run_id, named.files, clock), options.selection)
    check_files_of_bundles(loaded, region, is_local=target.local is not None)
    if region:
        check_region(region, loaded)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(stopped_by_signals(cancel))
        regions = stack.enter_context(open_cloud(target, region=region, clock=clock))
        signals.has_begun = True
        cancel.check()
        existing = Examiner(regions, region_of(region, regions), clock.now()).unchanged(
            bases_first(loaded), force=options.force
        )
        cancel.check()
        run = Run(run_id, clock, cancel, target.with_account(regions), loaded, options.run_options, existing)
        outcome, baked = run.execute(regions, region, _record(values, loaded, region, existing))
        return print_end(run, outcome, baked)


def _record(
    values: Given, loaded: Sequence[LoadedSpec], region: str | None, existing: Mapping[str, Existing]
) -> dict[str, Any]:
    """Return the values that `resume` needs to build the same graph. Sensitive variables are not recorded."""
    variables: dict[str, Any] = {}
    for spec in loaded:
        for name, variable in spec.checked().variables.items():
            if not variable.sensitive and (value := given_value(name, variable, values)) is not None:
                variables[name] = value
    for spec in loaded:
        for name, variable in spec.checked().variables.items():
            if variable.sensitive:
                variables.pop(name, None)
    return {
        "files": list(dict.fromkeys(str(spec.file.resolve()) for spec in loaded)),
        "specs": [str(spec.key) for spec in loaded],
        "existing": {key: found.record() for key, found in existing.items()},
        "variables": variables,
        "region": region,
    }


def load_buildable(
    named: NamedSpecs, given: Given, build: Build, selection: Selection = Selection()
) -> list[LoadedSpec]:
    """Load specs that can be built. Raises SpecError with all problems, including parts that are not supported yet."""
    siblings = sorted({sibling for file in named.files for sibling in file.parent.glob("*.y*ml")})
    beside = [file for file in siblings if file.suffix in SUFFIXES and file.name != PROJECT_FILE]
    loaded = load(named.files, given, build=build, dependents_in=beside if selection.with_dependents else ())
    loaded = select_variants(loaded, named.selections)
    for spec in loaded:
        for problem in spec.problems:
            if problem.severity == "warning":
                click.echo(problem.text(), err=True)
    refuse(loaded)
    unknown_variables([frozenset(spec.checked().variables) for spec in loaded], given)
    if problems := [problem for spec in loaded for problem in not_yet(spec)]:
        raise SpecError(problems)
    return narrow(loaded, selection.only, with_dependents=selection.with_dependents)


def check_files_of_bundles(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool) -> None:
    """Raise SpecError if a file that a bundle needs is missing or wrong: a signing key, or EC2's certificate."""
    problems = [
        problem
        for spec in loaded
        for problem in check_bundle_files(spec, environment=os.environ, is_local=is_local, region=region)
    ]
    if problems:
        raise SpecError(problems)


def _build(run_id: str, files: Sequence[Path], clock: Clock) -> Build:
    timestamp = clock.now().strftime("%Y%m%dT%H%M%SZ")
    return Build(run_id, timestamp, *git_sha(files[0].resolve().parent))


def git_sha(folder: Path) -> tuple[str, str]:
    """Return the commit that is checked out in this folder; or an empty string, with the reason why there is none."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    environment = {**os.environ, "LC_ALL": "C"}  # the reasons are recognized by git's English texts
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=environment)
    except FileNotFoundError:
        return "", "git is not installed on this computer"
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"git cannot be asked for the commit: {error}"
    if answer.returncode == 0:
        return answer.stdout.strip(), ""
    if "not a git repository" in answer.stderr:
        return "", f"{folder} is not in a git repository"
    if "unknown revision" in answer.stderr or "Needed a single revision" in answer.stderr:
        return "", f"the git repository of {folder} has no commits"
    return "", f"git refuses to read the repository of {folder}: {answer.stderr.strip().partition(chr(10))[0]}"
