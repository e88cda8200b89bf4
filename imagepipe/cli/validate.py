"""`imagepipe validate`: every problem of every spec, with its place. Loads yaml, pydantic and jinja2 only; cryptography
where there is an instance-store image.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from imagepipe.cli.options import check_region, cloud_options, found_specs, given, unknown_variables, variable_options
from imagepipe.errors import LocalCloudError, Problem, SpecError
from imagepipe.report.sarif import sarif
from imagepipe.spec.load import load
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import InstanceStoreOutput
from imagepipe.spec.not_yet import not_yet


@click.command(
    epilog="""\b
Examples:
  imagepipe validate
  imagepipe validate web-server.yaml --var greeting=hello
  imagepipe validate specs/ --format github
  imagepipe validate specs/ --format sarif >imagepipe.sarif
  imagepipe validate web-server.yaml --online --profile builder
"""
)
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@variable_options
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json", "github", "sarif"]),
    default="text",
    help="Print problems in this format.",
)
@click.option("--local", "is_local", is_flag=True, help="Also check that this machine can run the local cloud.")
@click.option(
    "--online",
    is_flag=True,
    help="Also ask the cloud, with DryRun: image, subnets, types, keys, names, IAM actions. Changes nothing.",
)
@cloud_options
def validate(
    specs: Sequence[str],
    variables: Sequence[str],
    var_files: Sequence[Path],
    output: str,
    is_local: bool,
    online: bool,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    role: str | None,
) -> int:
    """Check specs, given by path, by folder, or by the name of a file in specs/; by default all of specs/.

    Contacts no cloud without --online. Required variables need no value here. Exit code 2 if a spec has an error.
    """
    values = given(variables, var_files)
    loaded: list[LoadedSpec] = []
    try:
        loaded = load(found_specs(specs), values)
    except SpecError as error:
        problems = list(error.problems)
    else:
        found = (p for one in loaded for p in (*one.problems, *not_yet(one, severity="warning")))
        problems = list(dict.fromkeys(found))  # those of the project's file once, not once for each spec
        problems += _bundle_files(loaded, region, is_local=is_local)
        if all(one.spec for one in loaded):
            unknown_variables([frozenset(one.checked().variables) for one in loaded], values)
    if region and loaded:
        check_region(region, loaded)
    if is_local:
        _check_machine()
    if online and not any(p.severity == "error" for p in problems):
        words = {"profile": profile, "endpoint_url": endpoint_url, "role": role}
        problems += _online(loaded, region, is_local=is_local, **words)
    _print(output, loaded, problems)
    return 2 if any(p.severity == "error" for p in problems) else 0


def _bundle_files(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool) -> Iterator[Problem]:
    """What is wrong with certificates and keys. What reads them is loaded for specs that have some."""
    for one in loaded:
        if one.spec is not None and isinstance(one.spec.output, InstanceStoreOutput):
            from imagepipe.wiring.certificates import check_bundle_files

            # Where only local builds are made, no certificate of EC2 is needed: its absence is no error of the spec.
            yield from check_bundle_files(
                one, environment=os.environ, is_local=is_local, region=region, if_absent="warning"
            )


def _online(loaded: Sequence[LoadedSpec], region: str | None, *, is_local: bool, **words: str | None) -> list[Problem]:
    """What the cloud says. Its libraries are loaded here, for those who ask."""
    from imagepipe.cli.cloud import chosen_cloud, opened, region_of
    from imagepipe.clock import SystemClock
    from imagepipe.preflight import check_online

    chosen = chosen_cloud(is_local=is_local, **words)
    with opened(chosen, region=region, clock=SystemClock()) as regions:
        return [p for one in loaded for p in check_online(one, regions, region_of(region, regions))]


def _print(output: str, loaded: Sequence[LoadedSpec], problems: Sequence[Problem]) -> None:
    match output:
        case "json":
            click.echo(json.dumps(_as_json(loaded, problems), indent=2, ensure_ascii=False))
        case "sarif":
            click.echo(json.dumps(sarif(problems, folder=Path()), indent=2, ensure_ascii=False))
        case "github":
            for problem in problems:
                click.echo(_annotation(problem))
        case _:
            for problem in problems:
                click.echo(problem.text())
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
    return {
        "specs": [str(one.file) for one in loaded],
        "problems": [
            {
                "file": p.file,
                "line": p.line,
                "column": p.column,
                "path": p.path,
                "severity": p.severity,
                "message": p.message,
                "hint": p.hint,
            }
            for p in problems
        ],
    }


def _annotation(problem: Problem) -> str:
    """A workflow command of GitHub Actions; its values are escaped as GitHub's runner reads them."""
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


def _check_machine() -> None:
    """Raise LocalCloudError, with what installs it, where this machine lacks something."""
    from imagepipe.local.machines.requirements import container_problems

    if lacks := container_problems():
        raise LocalCloudError(f"the local cloud cannot run here: {'; '.join(lacks)}", hint="imagepipe local doctor")
