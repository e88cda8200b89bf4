"""`imagepipe ci-matrix`: print the jobs with which GitHub or GitLab bakes specs, without those that are unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import click

from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
from imagepipe.cli.loading import load_buildable
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    check_region,
    cloud_options,
    read_variables,
    variable_options,
)
from imagepipe.cli.output_format import format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.plan import Planner
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, state_option
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.planning.ci_jobs import Job, github, gitlab, job_of, levels
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.wiring.family import bases_first

LEVELS = 4
"""Levels of the workflow in .github/workflows/bake.yaml."""


@dataclass(frozen=True, slots=True)
class CiMatrixOptions:
    """Arguments and options of `imagepipe ci-matrix`."""

    specs: tuple[str, ...]
    with_unchanged: bool
    levels: int
    include: str | None
    variables: VariableOptions
    cloud: CloudOptions
    state: StateOptions
    output: str


@click.command(
    epilog="""\b
Examples:
  imagepipe ci-matrix specs/family
  imagepipe ci-matrix specs/ --format github >>"$GITHUB_OUTPUT"
  imagepipe ci-matrix specs/ --format gitlab --include .gitlab/imagepipe.yml >pipeline.yml
  imagepipe ci-matrix specs/ --all --format json
"""
)
@click.argument("specs", nargs=-1, metavar="[SPEC]...")
@click.option("--all", "with_unchanged", is_flag=True, help="With the unchanged specs too; contacts no cloud.")
@click.option(
    "--levels",
    type=click.IntRange(1, 64),
    default=LEVELS,
    show_default=True,
    metavar="N",
    help="With --format github: print N levels, as many as the workflow has jobs for.",
)
@click.option(
    "--include",
    metavar="FILE",
    help="With --format gitlab: the file of the repository that defines the job .imagepipe.",
)
@cloud_options
@state_option
@variable_options
@format_option("github", "gitlab", description="Print the jobs in this format.")
@pass_options(CiMatrixOptions)
def ci_matrix(options: CiMatrixOptions) -> None:
    """Print one CI job for each spec to bake or publish, in levels: bases first. By default, all of specs/.

    Each spec, and each base, is treated as if it said `reuse: unchanged`: it has a job only if its inputs have changed,
    its base is baked, or its image lacks a region or a permission. A job runs
    `imagepipe build FILE --only KEY`, or `imagepipe publish FILE --only KEY --yes`. Changes nothing.
    """
    if options.include and options.output != "gitlab":
        raise UsageError("--include is for --format gitlab")
    loaded = bases_first(load_buildable(NamedSpecs.of(options.specs), read_variables(options.variables), SAMPLE_BUILD))
    if options.cloud.region:
        check_region(options.cloud.region, loaded)
    jobs = {job.key: job for job in _jobs(options, loaded)}
    found = levels(loaded, jobs)
    unchanged = [str(spec.key) for spec in loaded if str(spec.key) not in jobs]
    match options.output:
        case "json":
            print_json({"levels": [[job.to_json() for job in level] for level in found], "unchanged": unchanged})
        case "github":
            click.echo(github(found, options.levels), nl=False)
        case "gitlab":
            click.echo(gitlab(found, options.include), nl=False)
        case _:
            _print(found, unchanged)


def _jobs(options: CiMatrixOptions, loaded: Sequence[LoadedSpec]) -> list[Job]:
    """Return the jobs of the specs that have one."""
    if options.with_unchanged:
        return [Job.build(spec, "all specs were asked for") for spec in loaded]
    for spec in loaded:
        spec.is_named = False  # a spec that is named is baked even if nothing has changed
    target, clock, region = cloud_target(options.cloud), SystemClock(), options.cloud.region
    with open_state(options.state, target, clock) as store, open_cloud(target, region=region, clock=clock) as regions:
        decisions = Planner(regions, region, store).decisions(loaded, force=False)
        home = region_of(region, regions)
        found = [
            job_of(spec, decision, spec.checked().publish.everywhere(home(spec.checked())))
            for spec, decision in zip(loaded, decisions, strict=True)
        ]
    return [job for job in found if job is not None]


def _print(found: Sequence[Sequence[Job]], unchanged: Sequence[str]) -> None:
    for number, level in enumerate(found):
        click.echo(f"level {number}")
        for job in level:
            click.echo(f"  {job.command} {job.key}, because {job.reason}")
    if unchanged:
        click.echo(f"up to date: {', '.join(unchanged)}")
