"""`imagepipe validate`: print every problem of every spec, with its position.

Loads only yaml, pydantic and jinja2; cryptography for instance-store images.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

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
from imagepipe.cli.output_format import format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem, SpecError
from imagepipe.report.sarif import sarif
from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import InstanceStoreOutput
from imagepipe.spec.selection import select_variants


@dataclass(frozen=True, slots=True)
class ValidateOptions:
    """Arguments and options of `imagepipe validate`."""

    specs: tuple[str, ...]
    variables: VariableOptions
    cloud: CloudOptions
    output: str
    online: bool


@click.command(
    epilog="""\b
Examples:
  imagepipe validate
  imagepipe validate web-server.yaml --var greeting=hello
  imagepipe validate 'web-server.yaml[release=bookworm]'
  imagepipe validate specs/ --format github
  imagepipe validate specs/ --format sarif >imagepipe.sarif
  imagepipe validate web-server.yaml --online --profile builder
  imagepipe validate web-server.yaml --online --local
"""
)
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@cloud_options
@variable_options
@format_option("github", "sarif", description="Print problems in this format.")
@click.option(
    "--online",
    is_flag=True,
    help="Also check image, subnets, types, keys, names and IAM actions in the cloud, with DryRun. Changes nothing.",
)
@pass_options(ValidateOptions)
def validate(options: ValidateOptions) -> int:
    """Check specs, given by path, by folder, or by the name of a file in specs/; by default all of specs/.

    Contacts no cloud without --online. Required variables need no value here. With --local, specs are checked for the
    local cloud, which needs no EC2 certificate; `imagepipe local doctor` checks this computer. Exit code 2 if a spec
    has an error.
    """
    values = read_variables(options.variables)
    region, is_local = options.cloud.region, options.cloud.is_local
    loaded: list[LoadedSpec] = []
    try:
        named = NamedSpecs.of(options.specs)
        loaded = select_variants(load(named.files, values), named.selections)
    except SpecError as error:
        problems = list(error.problems)
    else:
        found = (p for each in loaded for p in each.problems)
        problems = list(dict.fromkeys(found))  # every spec repeats the problems of the project file
        problems += _bundle_files(loaded, region, is_local=is_local)
        if all(each.spec for each in loaded):
            unknown_variables([frozenset(each.checked().variables) for each in loaded], values)
    if region and loaded:
        check_region(region, loaded)
    if options.online and not any(p.severity == "error" for p in problems):
        problems += _online(loaded, options.cloud)
    _print(options.output, loaded, problems)
    return 2 if any(p.severity == "error" for p in problems) else 0


def _bundle_files(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool) -> Iterator[Problem]:
    """Yield the problems of certificates and keys. Their library is loaded only for specs that have any."""
    for each in loaded:
        if each.spec is not None and isinstance(each.spec.output, InstanceStoreOutput):
            from imagepipe.wiring.certificates import check_bundle_files

            # A spec that is only built locally needs no EC2 certificate, so its absence is a warning.
            yield from check_bundle_files(
                each, environment=os.environ, is_local=is_local, region=region, if_absent="warning"
            )


def _online(loaded: Sequence[LoadedSpec], options: CloudOptions) -> list[Problem]:
    """Check the specs against the cloud. Its libraries are loaded here, so that an offline check starts faster."""
    from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
    from imagepipe.clock import SystemClock
    from imagepipe.preflight import check_online

    with open_cloud(cloud_target(options), region=options.region, clock=SystemClock()) as regions:
        region = region_of(options.region, regions)
        return [p for each in loaded for p in check_online(each, regions, region)]


def _print(output: str, loaded: Sequence[LoadedSpec], problems: Sequence[Problem]) -> None:
    match output:
        case "json":
            print_json(_as_json(loaded, problems))
        case "sarif":
            print_json(sarif(problems, folder=Path()))
        case "github":
            for problem in problems:
                click.echo(_annotation(problem))
        case _:
            for problem in problems:
                click.echo(problem.text())
            for spec in loaded:
                if spec.unset:
                    click.echo(f"note: {spec.document.file}: a build needs values of: {', '.join(spec.unset)} (--var)")
            click.echo(_summary(loaded, problems))


def _summary(loaded: Sequence[LoadedSpec], problems: Sequence[Problem]) -> str:
    errors = sum(p.severity == "error" for p in problems)
    warnings = len(problems) - errors
    counts = [f"{len(loaded)} spec{'' if len(loaded) == 1 else 's'}"]
    counts.append(f"{errors} error{'' if errors == 1 else 's'}" if errors else "valid")
    if warnings:
        counts.append(f"{warnings} warning{'' if warnings == 1 else 's'}")
    return ", ".join(counts)


def _as_json(loaded: Sequence[LoadedSpec], problems: Sequence[Problem]) -> dict[str, object]:
    keys = ("file", "line", "column", "path", "severity", "message", "hint")
    rows = [{key: getattr(problem, key) for key in keys} for problem in problems]
    return {"specs": [str(spec.file) for spec in loaded], "problems": rows}


def _annotation(problem: Problem) -> str:
    """Return a workflow command of GitHub Actions, escaped for GitHub's runner."""
    place = [f"file={_escaped(problem.file, ':,')}"]
    if problem.line:
        place += [f"line={problem.line}", f"col={problem.column}"]
    where = f"{problem.path}: " if problem.path else ""
    hint = f"\nhint: {problem.hint}" if problem.hint else ""
    return f"::{problem.severity} {','.join(place)},title=imagepipe::{_escaped(where + problem.message + hint)}"


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
