"""`imagepipe clean`: delete the resources of dead and failed runs, found in their journals or by tags."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Literal, assert_never

import click

from imagepipe.cleanup.sweep import YOUNGEST, SweepFilter, bundles_left_over, left_over, sweep
from imagepipe.cleanup.undoers import Undoers
from imagepipe.cli.cloud import cloud_target, open_cloud, recorded_target
from imagepipe.cli.options import CloudOptions
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run_options import DurationType
from imagepipe.cli.run_store import past_runs, run_of
from imagepipe.cli.state import open_writable_state
from imagepipe.cli.state_options import StateOptions, is_shared, state_option
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.inventory import TaggedResource
from imagepipe.cloud.session import FIRST_REGION
from imagepipe.dataclass import dataclass
from imagepipe.engine.events import AnyEvent, Events, Released
from imagepipe.engine.journal import Claim, Journal, read
from imagepipe.engine.journal_store import JournalStore
from imagepipe.engine.undo import undo
from imagepipe.errors import CloudError, ImagepipeError, UndoFailed, UsageError
from imagepipe.masking import Masker

ResourceState = Literal["deleted", "held", "never created", "would be deleted"]


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """Arguments and options of `imagepipe clean`."""

    runs: tuple[str, ...]
    is_all: bool
    older_than: timedelta | None
    in_regions: tuple[str, ...]
    buckets: tuple[str, ...]
    cloud: CloudOptions
    state: StateOptions
    dry_run: bool
    output: Format


@click.command(
    epilog="""\b
Examples:
  imagepipe clean 7f3a91c2
  imagepipe clean --all
  imagepipe clean --all --dry-run --format json
  imagepipe clean --older-than 3h --region us-east-1
  imagepipe clean --older-than 1d --local --dry-run
"""
)
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--all",
    "is_all",
    is_flag=True,
    help="Clean up all dead and failed runs of this machine, or of --state; not the instances of `images launch`.",
)
@click.option(
    "--older-than",
    type=DurationType(),
    metavar="DURATION",
    help="Find resources by their tags, without a journal, also those of runs on other machines: delete the ones whose "
    "run began longer ago than this (at least 1h) and is no longer in progress.",
)
@click.option(
    "--region",
    "in_regions",
    multiple=True,
    help="With --older-than: search only this region; repeatable.  [default: all]",
)
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    metavar="NAME",
    help="With --older-than: also delete the bundles in this bucket that no image uses; repeatable.",
)
@click.option("--local", "is_local", is_flag=True, help="Use the local cloud; with --all, clean up only runs on it.")
@click.option("--profile", metavar="NAME", help="With --older-than, and for --state: use this AWS profile.")
@click.option(
    "--endpoint-url", metavar="URL", help="With --older-than, and for --state: use this endpoint instead of AWS."
)
@state_option
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and change nothing.")
@log_format_option
@pass_options(CleanOptions)
def clean(options: CleanOptions) -> int:
    """Delete the resources that dead or failed runs left: instances, key pairs, security groups, unfinished images.

    RUN is the id of a run, the start of one, or `latest`; `imagepipe runs` lists them. Runs in progress and the images
    of successful runs are kept. Exit code 5 if something could not be deleted; run the command again to retry.
    """
    _check(options)
    report = CleanReport(options.output, is_dry_run=options.dry_run)
    with open_writable_state(options.state, options.cloud, SystemClock()) as store:
        if options.older_than is not None:
            has_failed = _sweep(options, options.older_than, report, store)
        else:
            has_failed = _clean_runs(options, report, store)
    report.end(has_failed=has_failed)
    return UndoFailed.exit_code if has_failed else 0


class CleanReport:
    """Prints a line as each resource is deleted; with `--format json`, one object at the end."""

    def __init__(self, output: Format, *, is_dry_run: bool) -> None:
        self._output = output
        self._is_dry_run = is_dry_run
        self._resources: list[dict[str, object]] = []
        self._runs: list[dict[str, object]] = []

    def resource(self, resource: Claim | TaggedResource, run: str, state: ResourceState, error: object = None) -> None:
        """Print the state of one resource."""
        name = str(resource) if isinstance(resource, Claim) else f"{resource.kind} {resource.id} in {resource.region}"
        row: dict[str, object] = {"run": run, "kind": resource.kind, "id": resource.id, "region": resource.region}
        self._resources.append({**row, "state": state} | ({} if error is None else {"error": str(error)}))
        match state:
            case "deleted":
                self._print(f"{run}: deleted: {name}")
            case "never created":
                self._print(f"{run}: was never created: {name}")
            case "would be deleted":
                self._print(f"{run}: would {'delete' if resource.id else 'look for'} {name}")
            case "held":
                click.echo(f"still held: {name} ({error})", err=True)
            case _:
                assert_never(state)

    def skipped(self, run: str, reason: object, hint: str | None = None, *, is_error: bool) -> None:
        """Print the reason why a run is left alone."""
        self._runs.append({"run": run, "reason": str(reason), "hint": hint})
        line = f"{run}: left alone: {reason}"
        if is_error:
            click.echo(line, err=True)
            if hint:
                click.echo(f"  hint: {hint}", err=True)
        else:
            self._print(line)

    def end(self, *, has_failed: bool) -> None:
        """Print the end of the report."""
        if not self._resources and not has_failed:
            self._print("nothing to delete")
        if any(row["state"] == "held" for row in self._resources):
            click.echo("To retry, run the same command again", err=True)
        if self._output == "json":
            print_json({"dry_run": self._is_dry_run, "resources": self._resources, "runs_left_alone": self._runs})

    def _print(self, line: str) -> None:
        click.echo(line, err=self._output == "json")


def _check(options: CleanOptions) -> None:
    """Raise UsageError for options that exclude one another."""
    if options.older_than is not None:
        if options.runs or options.is_all:
            raise UsageError("--older-than searches by tags: it cannot be combined with runs or --all")
        if options.older_than < YOUNGEST:
            raise UsageError("--older-than must be at least 1h, as a younger run may not have set its expiry tag yet")
        return
    is_access = bool(options.cloud.profile or options.cloud.endpoint_url)
    if options.in_regions or options.buckets or (is_access and not is_shared(options.state)):
        given = "--region, --bucket, --profile and --endpoint-url"
        raise UsageError(f"{given} need --older-than: a journal records its own cloud")
    if bool(options.runs) == options.is_all:
        raise UsageError("name a run, or pass --all or --older-than", hint="imagepipe runs lists them")


def _clean_runs(options: CleanOptions, report: CleanReport, store: JournalStore) -> bool:
    """Delete the resources in the journals of runs; return whether something is left."""
    is_local = options.cloud.is_local
    runs = (
        _runs_with_resources(store, report, is_local=is_local)
        if options.is_all
        else _named_runs(store, options.runs, is_local=is_local)
    )
    has_failed = False
    for run in runs:
        try:
            has_failed |= clean_run(store, run, report, options.cloud, is_dry_run=options.dry_run)
        except ImagepipeError as error:
            if not options.is_all:
                raise
            # Continue, because the other runs may be in a different cloud that does answer.
            report.skipped(run, error, error.hint, is_error=True)
            has_failed = True
    return has_failed


def _sweep(options: CleanOptions, older_than: timedelta, report: CleanReport, store: JournalStore) -> bool:
    """Delete the resources of dead runs of any machine, found by tags; return whether something is left."""
    clock = SystemClock()
    alive = {past.run.id for _, past in past_runs(store) if not isinstance(past, ImagepipeError) and past.is_alive}
    first = options.in_regions[0] if options.in_regions else None
    has_failed = False
    with open_cloud(cloud_target(options.cloud), region=first, clock=clock) as regions:
        home = regions.session.region or FIRST_REGION
        buckets = _buckets(regions, home, options.buckets)
        which: SweepFilter = {"older_than": older_than, "now": clock.now(), "is_alive": alive.__contains__}
        searched = options.in_regions or regions.enabled(home)
        searches = [partial(left_over, regions, region, **which) for region in searched]
        searches += [
            partial(bundles_left_over, regions, region, bucket, instance_regions=searched, **which)
            for bucket, region in buckets.items()
        ]
        for search in searches:  # bundles last, after the images that are registered from them
            resources = search()
            if options.dry_run:
                for resource in resources:
                    report.resource(resource, resource.run, "would be deleted")
                continue
            for swept in sweep(resources, regions, clock):
                state: ResourceState = "deleted" if swept.error is None else "held"
                report.resource(swept.thing, swept.thing.run, state, swept.error)
                has_failed |= swept.error is not None
    return has_failed


def _buckets(regions: Regions, home: str, names: Sequence[str]) -> dict[str, str]:
    """Return the region of each bucket. Raises CloudError."""
    found = {name: regions[home].s3.region_of(name) for name in names}
    if missing := [name for name, region in found.items() if region is None]:
        raise CloudError(f"bucket {', '.join(missing)} does not exist", code="NoSuchBucket")
    return {name: region for name, region in found.items() if region is not None}


def _runs_with_resources(store: JournalStore, report: CleanReport, *, is_local: bool) -> list[str]:
    """Return the runs that hold something and are not in progress."""
    found = []
    for run, past in past_runs(store):
        if isinstance(past, ImagepipeError):
            report.skipped(run, past, is_error=True)
        elif past.is_alive:
            report.skipped(run, "it is in progress", is_error=False)
        elif past.has_launched:
            report.skipped(run, "`imagepipe images launch` made it; `imagepipe clean RUN` deletes it", is_error=False)
        elif past.open_claims() and (not is_local or "local" in past.run.cloud):
            found.append(run)
    return found


def _named_runs(store: JournalStore, words: Sequence[str], *, is_local: bool) -> list[str]:
    runs = [run_of(store, word) for word in words]
    for run in runs:
        past = read(store, run)
        if is_local and "local" not in past.run.cloud:
            raise UsageError(f"run {past.run.id} is not on the local cloud", hint="leave out --local")
    return runs


def clean_run(
    store: JournalStore, run: str, report: CleanReport, cloud: CloudOptions, *, is_dry_run: bool = False
) -> bool:
    """Delete the resources of one run; return whether something is left. Raises UsageError if it is in progress."""
    past = read(store, run)
    if past.is_alive:
        store.check_free(run)
    claims = past.open_claims()
    if is_dry_run:
        for claim in reversed(claims):
            report.resource(claim, past.run.id, "would be deleted")
        return False
    if not claims:
        return False
    clock = SystemClock()
    journal = Journal.reopen(store, run, clock)
    target = recorded_target(past.run.cloud, cloud)
    try:
        with open_cloud(target, region=None, clock=clock) as regions, journal.event_sink() as sink:
            target.check_account(regions)
            regions.session.check_before_changes(journal.check_held)
            seen: list[AnyEvent] = []
            events = Events(past.run.id, clock, Masker(), [sink, seen.append])
            held = undo(journal, Undoers(regions, clock).undoers(), events)
    finally:
        journal.close()
    deleted = {(event.kind, event.region, event.id) for event in seen if isinstance(event, Released)}
    errors = {each.claim.key: each.error for each in held}
    for claim in reversed(claims):
        if (claim.kind, claim.region, claim.id or claim.token) in deleted:
            report.resource(claim, past.run.id, "deleted")
        elif claim.key not in errors:
            report.resource(claim, past.run.id, "never created")
        else:
            report.resource(claim, past.run.id, "held", errors[claim.key])
    return bool(held)
