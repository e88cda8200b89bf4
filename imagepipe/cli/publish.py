"""`imagepipe publish`: make images that exist match their specs in every region."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import click

from imagepipe.cli.build_values import current_build, record_for_resume
from imagepipe.cli.cloud import cloud_target, open_cloud, region_of
from imagepipe.cli.end import changes_json, print_end
from imagepipe.cli.loading import Selection, check_files_of_bundles, load_buildable, only_option
from imagepipe.cli.options import (
    CloudOptions,
    NamedSpecs,
    VariableOptions,
    check_region,
    cloud_options,
    is_image_id,
    read_variables,
    variable_options,
)
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run import Run, stopped_by_signals
from imagepipe.cli.run_options import RunOptions
from imagepipe.cli.state import open_writable_state
from imagepipe.cli.state_options import StateOptions, check_state_of_specs, state_option
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import UsageError
from imagepipe.reconcile import Reconciler
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.wiring.existing import Existing, Settled
from imagepipe.wiring.names import check_distinct_names


@dataclass(frozen=True, slots=True)
class PublishOptions:
    """Arguments and options of `imagepipe publish`."""

    words: tuple[str, ...]
    only: tuple[str, ...]
    variables: VariableOptions
    cloud: CloudOptions
    state: StateOptions
    is_confirmed: bool
    dry_run: bool
    output: Format


@click.command(
    epilog="""\b
Examples:
  imagepipe publish web-server.yaml --dry-run
  imagepipe publish web-server.yaml --local
  imagepipe publish web-server.yaml ami-0123456789abcdef0
  imagepipe publish specs/family --yes --format json
"""
)
@click.argument("words", nargs=-1, required=True, metavar="SPEC... [IMAGE]")
@cloud_options
@variable_options
@state_option
@only_option
@click.option("--yes", "is_confirmed", is_flag=True, help="Make the changes without asking; needed without a terminal.")
@click.option("--dry-run", is_flag=True, help="Print the differences, and change nothing.")
@log_format_option
@pass_options(PublishOptions)
def publish(options: PublishOptions) -> int:
    """Make the newest image of each spec, or IMAGE, match its spec in every region; bake nothing.

    Copies the image to regions that lack it, and sets permissions, tags, deprecation, protection, launch templates and
    the SSM parameter. Removes the permissions that the spec does not grant. Prints the differences first, and asks
    before it changes anything.

    The command is a run like a build: `runs`, `show`, `resume` and `clean` know it. Bases that are not named are not
    published.
    """
    clock, run_id = SystemClock(), secrets.token_hex(4)
    images = [word for word in options.words if is_image_id(word)]
    values, region = read_variables(options.variables), options.cloud.region
    named = NamedSpecs.of(_specs(options.words, images))
    build = current_build(run_id, named.files, clock)
    loaded = [spec for spec in load_buildable(named, values, build, Selection(options.only)) if spec.is_named]
    if images and len(loaded) > 1:
        keys = ", ".join(str(spec.key) for spec in loaded)
        raise UsageError(f"{images[0]} belongs to one spec, but {len(loaded)} are named: {keys}")
    check_state_of_specs(options.state, loaded)
    target = cloud_target(options.cloud)
    check_files_of_bundles(loaded, region, is_local=target.local is not None)
    if region:
        check_region(region, loaded)
    cancel = Cancel(clock)
    with ExitStack() as stack:
        signals = stack.enter_context(stopped_by_signals(cancel))
        store = stack.enter_context(open_writable_state(options.state, target, clock))
        regions = stack.enter_context(open_cloud(target, region=region, clock=clock))
        reconciler = Reconciler(regions, region_of(region, regions))
        check_distinct_names(loaded, region_of(region, regions))
        existing = {str(spec.key): reconciler.compare(spec, *images) for spec in loaded}
        missing = {str(spec.key): reconciler.missing(spec, existing[str(spec.key)]) for spec in loaded}
        has_changes = any(found.changes for found in existing.values()) or any(missing.values())
        run_options = RunOptions(options.output)
        _print_differences(loaded, existing, missing, run_options)
        if options.dry_run or not has_changes:
            if options.output == "json":
                rows = changes_json(existing, missing)
                print_json({"run": None, "dry_run": options.dry_run, "changes": rows})
            return 0
        if not options.is_confirmed:
            _confirm(options.output)
        signals.has_begun = True
        cancel.check()
        run = Run(run_id, store, clock, cancel, target.with_account(regions), loaded, run_options, Settled(existing))
        outcome, baked = run.execute(regions, region, record_for_resume(values, loaded, region, existing))
        return print_end(run, outcome, baked)


def _specs(words: Sequence[str], images: Sequence[str]) -> list[str]:
    """Return the words that name specs. Raises UsageError without a spec, or with several images."""
    specs = [word for word in words if word not in images]
    if not specs:
        raise UsageError(f"name the spec of {images[0]}", hint=f"imagepipe publish web-server.yaml {images[0]}")
    if len(images) > 1:
        raise UsageError(f"only one image can be named, not {len(images)}", hint="its copies are found by themselves")
    return specs


def _print_differences(
    loaded: Sequence[LoadedSpec],
    existing: Mapping[str, Existing],
    missing: Mapping[str, Sequence[str]],
    options: RunOptions,
) -> None:
    """Print how the images of each spec differ from it, region by region."""
    for key in (str(spec.key) for spec in loaded):
        found = existing[key]
        for region, image in found.images.items():
            lines = [line for change in found.changes if change.region == region for line in change.lines]
            click.echo(f"{key}: {image} in {region}{'' if lines else ': as the spec wants it'}", file=options.log)
            for line in lines:
                click.echo(f"  {line}", file=options.log)
        for region in missing[key]:
            click.echo(f"{key}: no image in {region}\n  + a copy, published as the spec wants it", file=options.log)


def _confirm(output: Format) -> None:
    """Ask whether to make the changes. Raises UsageError if nobody can be asked, and Abort for a no."""
    if output == "json" or not sys.stdin.isatty():
        raise UsageError(
            "these changes need a confirmation, and there is no terminal to ask on",
            hint="run it again with --yes, or with --dry-run to see them only",
        )
    click.confirm("make these changes?", abort=True)
