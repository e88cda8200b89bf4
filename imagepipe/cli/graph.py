"""`imagepipe graph`: draw the specs of a family, or the stages of one spec, with the times of the last run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import get_args

import click

from imagepipe.assembly import Plan, assemble_unrun
from imagepipe.cli.loading import load_buildable
from imagepipe.cli.options import (
    NamedSpecs,
    VariableOptions,
    read_variables,
    region_option,
    state_folder,
    variable_options,
)
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.past_times import SpecTimes, last_bakes
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import Access, Session
from imagepipe.dataclass import dataclass
from imagepipe.engine.file_store import FileStore
from imagepipe.report.drawing import Drawing, Format, Node
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.wiring.family import bases_first

ANY_REGION = "us-east-1"
"""Region of a spec that sets none: a drawing is the same in every region, but for the names of copies."""


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """Arguments and options of `imagepipe graph`."""

    specs: tuple[str, ...]
    variables: VariableOptions
    region: str | None
    stages: bool
    output: Format


@click.command(
    epilog="""\b
Examples:
  imagepipe graph specs/family
  imagepipe graph web-server.yaml
  imagepipe graph specs/family --stages
  imagepipe graph specs/family --format svg >family.svg
  imagepipe graph specs/family --format mermaid
  imagepipe graph web-server.yaml --format dot | dot -Tpng >stages.png
"""
)
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
@variable_options
@region_option
@click.option("--stages", is_flag=True, help="Draw the stages of all specs, even of several.")
@click.option(
    "--format",
    "output",
    type=click.Choice(get_args(Format)),
    default="text",
    show_default=True,
    help="Print the drawing in this format.",
)
@pass_options(GraphOptions)
def graph(options: GraphOptions) -> None:
    """Draw several specs and their bases, or the stages of one spec.

    The times are those of the last run on this computer that baked each spec. The critical path is marked: the chain
    of stages, or of specs, that decided how long it took. Contacts no cloud.
    """
    loaded = load_buildable(NamedSpecs.of(options.specs), read_variables(options.variables), SAMPLE_BUILD)
    times = last_bakes(FileStore(state_folder()), [str(each.key) for each in loaded])
    several = len(loaded) > 1
    if several and not options.stages:
        drawing = _of_specs(loaded, times)
    else:
        made = unrun_graph(loaded, options.region, scans_disks=any("hygiene" in each.stages for each in times.values()))
        drawing = _of_stages(made, times, key="" if several else str(loaded[0].key))
    click.echo(drawing.draw(options.output), nl=False)


def _of_specs(loaded: Sequence[LoadedSpec], times: Mapping[str, SpecTimes]) -> Drawing:
    nodes, needs = {}, {}
    for each in bases_first(loaded):
        key = str(each.key)
        nodes[key] = Node(key, times[key].total if key in times else None)
        needs[key] = [str(each.base_spec.key)] if each.base_spec else []
    return Drawing(nodes, needs)


def _of_stages(made: Plan, times: Mapping[str, SpecTimes], *, key: str) -> Drawing:
    """Draw every stage; `key` is the key of the only spec, whose stages have no prefix."""
    nodes, needs = {}, {}
    for name in made.graph.order():
        spec, _, stage = name.rpartition("/")
        last = times.get(spec or key)
        nodes[name] = Node(name, last.stages.get(stage) if last else None)
        needs[name] = sorted(made.graph.needs(name))
    return Drawing(nodes, needs)


def unrun_graph(loaded: Sequence[LoadedSpec], region: str | None, *, scans_disks: bool) -> Plan:
    """Return the graph of stages, made without a cloud: nothing in it is run."""

    def home(spec: Spec) -> str:
        return region or spec.launch.region or os.environ.get("AWS_DEFAULT_REGION") or ANY_REGION

    session = Session(Access(region=ANY_REGION, access_key_id="none", secret_access_key="none"))  # noqa: S106 - no secret
    return assemble_unrun(loaded, Regions(session, SystemClock()), home, {}, scans_disks=scans_disks)
