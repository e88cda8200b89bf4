"""`imagepipe plan`: print everything that a build would do, with reasons, duration and cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from imagepipe.assembly import assemble_unrun
from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
from imagepipe.cli.loading import Selection, load_buildable, selection_options, stored_variables
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    check_region,
    cloud_options,
    read_variables,
    variable_options,
)
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.past_inputs import PastInputs
from imagepipe.cli.past_times import last_bakes
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, state_option
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.images import snapshots_of
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal_store import JournalStore
from imagepipe.planning.actions import Action, actions_of
from imagepipe.planning.cost import UNKNOWN, Amount
from imagepipe.planning.decisions import Decision, decide
from imagepipe.planning.document import PlanDocument, Request
from imagepipe.planning.estimate import GB, LastBake, run_seconds, total_cost
from imagepipe.planning.prices import load_prices
from imagepipe.planning.retention import retired_by
from imagepipe.retention.rules import rules_of
from imagepipe.reuse import Examiner
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given
from imagepipe.why.answer import Answer
from imagepipe.why.inquiry import Inquiry
from imagepipe.wiring.family import bases_first

CHANGES_EXIT_CODE = 2
"""Exit code of `--detailed-exitcode` if the build would change anything, as in Terraform."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Arguments and options of `imagepipe plan`."""

    specs: tuple[str, ...]
    selection: Selection
    variables: VariableOptions
    cloud: CloudOptions
    prices: Path | None
    out: Path | None
    detailed_exitcode: bool
    output: Format
    state: StateOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe plan specs/family --local
  imagepipe plan web-server.yaml --out web-server.plan
  imagepipe build --plan web-server.plan
  imagepipe plan specs/family --format json --detailed-exitcode
  imagepipe plan web-server.yaml --prices our-prices.json
"""
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@cloud_options
@variable_options
@selection_options
@state_option
@click.option(
    "--prices",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    envvar="IMAGEPIPE_PRICES",
    help="Use this table of prices, in JSON, instead of the one that comes with imagepipe.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the plan for `imagepipe build --plan FILE`, which does exactly this, or refuses.",
)
@click.option(
    "--detailed-exitcode", is_flag=True, help="Exit with 2 if the build would change anything, and with 0 if not."
)
@log_format_option
@pass_options(PlanOptions)
def plan(options: PlanOptions) -> int:
    """Print everything that `build` with the same arguments would do, and why; change nothing.

    A spec is baked, or an existing image with the same inputs is used. Durations are those of the last bake on this
    computer, and sizes those of the last image. A price or a size that is not known is printed as unknown, and is never
    counted as 0.
    """
    prices = load_prices(options.prices)
    target, region = cloud_target(options.cloud), options.cloud.region
    values = read_variables(options.variables)
    loaded = load_buildable(NamedSpecs.of(options.specs), values, SAMPLE_BUILD, options.selection)
    if region:
        check_region(region, loaded)
    clock = SystemClock()
    with open_state(options.state, target, clock) as store, open_cloud(target, region=region, clock=clock) as regions:
        cloud = target.with_account(regions).record()
        request = request_of(loaded, values, region, cloud, force=options.selection.force)
        planner = Planner(regions, region, store)
        document = planner.plan(loaded, request, prices)
    if options.out:
        document.write(options.out)
    if options.output == "json":
        print_json(document.to_json())
    else:
        _print(document)
        if options.out:
            click.echo(f"\nwritten to {options.out}; to do exactly this: imagepipe build --plan {options.out}")
    return CHANGES_EXIT_CODE if options.detailed_exitcode and document.changes else 0


def request_of(
    loaded: Sequence[LoadedSpec], values: Given, region: str | None, cloud: Mapping[str, str], *, force: bool
) -> Request:
    """Return the part of a plan from which the same specs can be loaded again."""
    return Request(
        tuple(dict.fromkeys(str(spec.file.resolve()) for spec in loaded)),
        tuple(str(spec.key) for spec in loaded),
        tuple(str(spec.key) for spec in loaded if spec.is_named),
        stored_variables(values, loaded),
        region,
        cloud,
        force,
    )


class Planner:
    """Makes the plan of a build with read-only calls."""

    def __init__(self, regions: Regions, region: str | None, store: JournalStore) -> None:
        self._regions, self._region = regions, region_of(region, regions)
        self._store, self._inputs = store, PastInputs(store)
        self._clock = SystemClock()

    def decisions(self, loaded: Sequence[LoadedSpec], *, force: bool) -> list[Decision]:
        """Decide for each spec whether it is baked. `loaded` has bases first."""
        return self._decide(loaded, force=force)[0]

    def _decide(self, loaded: Sequence[LoadedSpec], *, force: bool) -> tuple[list[Decision], Mapping[str, Answer]]:
        inquiry = Inquiry(self._regions, self._region, self._inputs.manifest)
        answers = inquiry.answers(loaded)
        existing = Examiner(self._regions, self._region, self._clock.now()).unchanged(loaded, force=force)
        return decide(loaded, existing, answers, inquiry.examined, force=force), answers

    def plan(self, specs: Sequence[LoadedSpec], request: Request, prices: Any) -> PlanDocument:
        """Return the whole plan."""
        loaded = bases_first(specs)
        decisions, answers = self._decide(loaded, force=request.force)
        baked = [spec for spec, decision in zip(loaded, decisions, strict=True) if decision.action == "bake"]
        existing = {decision.spec: decision.existing for decision in decisions if decision.existing is not None}
        last = self._last_bakes(baked, answers)
        seconds = {key: bake.seconds for key, bake in last.items()}
        costs = [(spec, self._region(spec.checked()), last[str(spec.key)]) for spec in baked]
        made = assemble_unrun(specs, self._regions, self._region, existing)
        owner = {stage: build.spec for build in made.baked for stage in build.stages}
        return PlanDocument(
            self._clock.now(),
            request,
            tuple(decisions),
            (*actions_of(made.graph, owner.__getitem__), *self._retired(baked)),
            seconds,
            run_seconds(loaded, seconds),
            total_cost(costs, prices),
            prices,
        )

    def _retired(self, baked: Sequence[LoadedSpec]) -> Iterator[Action]:
        """Return the steps of retention once the new images exist, in the regions of each spec."""
        rules = {spec.key: rules_of(spec.checked(), self._region(spec.checked())) for spec in baked}
        known = {key: each for key, each in rules.items() if each is not None}
        return retired_by(known, self._regions, self._inputs.source, self._clock.now())

    def _last_bakes(self, baked: Sequence[LoadedSpec], answers: Mapping[str, Answer]) -> dict[str, LastBake]:
        times = last_bakes(self._store, [str(spec.key) for spec in baked])
        sizes = self._sizes(baked, answers)
        found = {}
        for key in (str(spec.key) for spec in baked):
            last = times.get(key)
            size = sizes.get(key, UNKNOWN)
            found[key] = LastBake(last.stages, last.total, size) if last else LastBake({}, None, size)
        return found

    def _sizes(self, baked: Sequence[LoadedSpec], answers: Mapping[str, Answer]) -> dict[str, Amount]:
        """Return the size in GB of the last image of each spec."""
        by_region: dict[str, dict[str, str]] = {}
        for spec in baked:
            if (image := answers[str(spec.key)].image) is not None:
                by_region.setdefault(self._region(spec.checked()), {})[str(spec.key)] = image.id
        found: dict[str, Amount] = {}
        for region, images in by_region.items():
            ec2 = self._regions[region]
            described = ec2.images.describe_many(sorted(set(images.values())))
            own = {key: snapshots_of(described[id]) for key, id in images.items() if id in described}
            snapshots = ec2.snapshots.describe_many(sorted({each for ids in own.values() for each in ids}))
            for key, ids in own.items():
                if ids and all(id in snapshots for id in ids):
                    high = sum(float(snapshots[id]["VolumeSize"]) * 1.073741824 for id in ids)
                    full = [snapshots[id].get("FullSnapshotSizeInBytes") for id in ids]
                    low = sum(float(size) for size in full if size is not None) / GB if None not in full else 0.0
                    found[key] = Amount(low, high)
        return found


def _print(document: PlanDocument) -> None:
    for decision in document.decisions:
        click.echo(f"{decision.spec}: {decision.action}, because {decision.reason}")
        source = f"  source image {decision.source}" if decision.source else "  source image: that of its base, new"
        click.echo(
            source if decision.action == "bake" else f"  {decision.existing.describe()}" if decision.existing else ""
        )
        for action in document.actions:
            if action.spec == decision.spec and action.verb != "find":
                click.echo(f"  {action.describe()}")
        if decision.action == "bake":
            seconds = document.seconds.get(decision.spec)
            click.echo(f"  duration: {'unknown' if seconds is None else f'about {_shown(seconds)}'}")
    total = document.total_seconds
    click.echo(f"\nduration of the build: {'unknown' if total is None else f'about {_shown(total)}'}")
    _print_cost(document)
    if not document.changes:
        click.echo("nothing to change")


def _print_cost(document: PlanDocument) -> None:
    prices = document.prices
    if prices is None or not document.cost.lines:
        return
    for line in document.cost.lines:
        price = "unknown price" if line.price is None else f"x {line.price:.4g} {prices.currency}"
        click.echo(
            f"  {line.spec}: {line.kind} in {line.region} ({line.detail}): {line.quantity} {line.unit} {price}"
            f" = {line.cost()}{' a month' if line.is_monthly else ''}"
        )
    click.echo(f"cost of the build on AWS: {document.cost.once().describe(prices.currency)}")
    click.echo(f"cost of the new images on AWS, each month: {document.cost.monthly().describe(prices.currency)}")
    click.echo(f"prices of {prices.date}: {prices.source or 'your own table'}")


def _shown(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
