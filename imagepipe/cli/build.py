"""`imagepipe build`: bake the images of specs, and clean up after a failure."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.cli.build_options import BuildOptions
from imagepipe.cli.build_values import current_build, record_for_resume
from imagepipe.cli.cloud import CloudTarget, cloud_target, open_cloud, region_of
from imagepipe.cli.end import print_end
from imagepipe.cli.engine_options import engine_options
from imagepipe.cli.junit_file import reported_in
from imagepipe.cli.loading import (
    Selection,
    check_this_computer,
    load_buildable,
    selection_options,
)
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    check_region,
    cloud_options,
    read_variables,
    variable_options,
)
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.report_folder import clear_folder, write_own_report
from imagepipe.cli.run import Run, stopped_by_signals
from imagepipe.cli.run_options import RunCommand, run_options
from imagepipe.cli.state import open_writable_state
from imagepipe.cli.state_options import check_state_of_specs, state_option
from imagepipe.clock import Clock, SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.dataclass import dataclass
from imagepipe.engine.cancel import Cancel
from imagepipe.engine.journal_store import JournalStore
from imagepipe.errors import UsageError
from imagepipe.reuse import Examiner
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.wiring.existing import Settled
from imagepipe.wiring.family import bases_first

if TYPE_CHECKING:
    from imagepipe.planning.decisions import Decision


@click.command(
    cls=RunCommand,
    epilog="""\b
Examples:
  imagepipe build web-server.yaml --local
  imagepipe build specs/web-server.yaml --var greeting=hi --region eu-west-1
  imagepipe build specs/ --format json >images.json
  imagepipe build specs/family --only runtime --with-dependents
  imagepipe build 'web-server.yaml[release=bookworm]'
  imagepipe build web-server.yaml --junit tests.xml --report report/
  imagepipe build --plan web-server.plan
  imagepipe build web-server.yaml --state s3://our-state/team
  imagepipe build specs/ --state s3://our-state/team --engine temporal://localhost:7233
""",
)
@click.argument("specs", nargs=-1, metavar="SPEC...")
@cloud_options
@variable_options
@run_options
@selection_options
@state_option
@engine_options
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Do exactly what this plan says (`imagepipe plan --out`), or refuse if an image or a fingerprint has changed.",
)
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
    if options.engine.engine:
        from imagepipe.cli.engine import build_on_temporal

        return build_on_temporal(options)
    if options.engine.build_id is not None:
        raise UsageError("--build-id names a build on Temporal: it needs --engine temporal://HOST:PORT/NAMESPACE")
    with reported_in(options.run_options.junit):
        clear_folder(options.run_options.report)
        return _build_images(options)


def _build_images(options: BuildOptions) -> int:
    """Load the specs, open the cloud, run the graph and print how it ended; return the exit code."""
    clock = SystemClock()
    run_id = secrets.token_hex(4)
    work = _planned_work(options, run_id, clock) if options.plan_file else _named_work(options, run_id, clock)
    loaded, region = work.loaded, work.region
    check_state_of_specs(options.state, loaded)
    check_this_computer(loaded, region, is_local=work.target.local is not None)
    if region:
        check_region(region, loaded)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(stopped_by_signals(cancel))
        store = stack.enter_context(open_writable_state(options.state, work.target, clock))
        regions = stack.enter_context(open_cloud(work.target, region=region, clock=clock))
        signals.has_begun = True
        cancel.check()
        settled = work.settle(regions, store)
        cancel.check()
        target = work.target.with_account(regions)
        run = Run(run_id, store, clock, cancel, target, loaded, options.run_options, settled)
        outcome, baked = run.execute(regions, region, record_for_resume(work.values, loaded, region, settled.existing))
        code = print_end(run, outcome, baked)
        write_own_report(run)
        return code


@dataclass(frozen=True, slots=True)
class _Work:
    """The specs of a build, and how to find out which of them are baked."""

    loaded: list[LoadedSpec]
    values: Given
    region: str | None
    target: CloudTarget
    settle: Callable[[Regions, JournalStore], Settled]


def _named_work(options: BuildOptions, run_id: str, clock: Clock) -> _Work:
    """Return the work that the command line names."""
    if not options.specs:
        raise UsageError("SPEC is missing: name a spec, a folder with specs, or a plan (--plan FILE)")
    values, region = read_variables(options.variables), options.cloud.region
    named = NamedSpecs.of(options.specs)
    loaded = load_buildable(named, values, current_build(run_id, named.files, clock), options.selection)

    def settle(regions: Regions, store: JournalStore) -> Settled:
        examiner = Examiner(regions, region_of(region, regions), clock.now())
        return Settled(examiner.unchanged(bases_first(loaded), force=options.selection.force))

    return _Work(loaded, values, region, cloud_target(options.cloud), settle)


def _planned_work(options: BuildOptions, run_id: str, clock: Clock) -> _Work:
    """Return the work of a plan file. Raises UsageError if options would change it."""
    from imagepipe.cli.plan import Planner
    from imagepipe.planning.document import read_plan

    if options.specs or options.selection != Selection() or options.cloud != CloudOptions():
        raise UsageError(
            "--plan says which specs are built, and where: it cannot be combined with specs, --local, --region, --only,"
            " --force and the like",
            hint="make another plan with them: imagepipe plan … --out FILE",
        )
    file = Path(str(options.plan_file))
    request, planned = read_plan(file, clock.now())
    values = read_variables(options.variables)
    values = replace(values, files={**request.variables, **values.files})
    named = NamedSpecs([Path(each) for each in request.files])
    loaded = load_buildable(named, values, current_build(run_id, named.files, clock))
    loaded = [spec for spec in loaded if str(spec.key) in request.specs]
    for spec in loaded:
        spec.is_named = str(spec.key) in request.named
    target = CloudTarget.from_record(request.cloud)

    def settle(regions: Regions, store: JournalStore) -> Settled:
        target.check_account(regions)
        now = Planner(regions, request.region, store).decisions(bases_first(loaded), force=request.force)
        differences = _differences(planned, now)
        if differences:
            raise UsageError(
                f"the plan {file} no longer holds: {'; '.join(differences)}",
                hint="make a new one: imagepipe plan … --out FILE",
            )
        existing = {each.spec: each.existing for each in now if each.existing is not None}
        return Settled(existing, {each.spec: each.source for each in now if each.source})

    return _Work(loaded, values, request.region, target, settle)


def _differences(planned: Sequence[Decision], now: Sequence[Decision]) -> list[str]:
    """Return what a build would do differently from its plan."""
    before = {decision.spec: decision for decision in planned}
    if before.keys() != {each.spec for each in now}:
        return ["its files have other specs now"]
    return [text for each in now if (text := each.differs_from(before[each.spec]))]
