"""`imagepipe clean`: deletes what a dead or failed run holds, by its journal; with the code of a build's undo."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

import click

from imagepipe.cleanup.sweep import YOUNGEST, SweepFilter, Swept, bundles_left_over, left_over, sweep
from imagepipe.cleanup.undoers import Undoers
from imagepipe.cli.cloud import CloudTarget, chosen_cloud, opened
from imagepipe.cli.options import DurationType
from imagepipe.cli.run_store import folder_of, past_runs
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Regions
from imagepipe.cloud.session import FIRST_REGION
from imagepipe.engine.events import FILE_NAME as EVENTS_FILE
from imagepipe.engine.events import AnyEvent, EventFile, Events, Released
from imagepipe.engine.journal import Claim, Journal, read
from imagepipe.engine.undo import StillHeld, undo
from imagepipe.errors import CloudError, ImagepipeError, UndoFailed, UsageError
from imagepipe.masking import Masker


@click.command(
    epilog="""\b
Examples:
  imagepipe clean 7f3a91c2
  imagepipe clean --all
  imagepipe clean --all --dry-run
  imagepipe clean --older-than 3h --region us-east-1
  imagepipe clean --older-than 1d --local --dry-run
"""
)
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--all", "is_all", is_flag=True, help="Clean every run of this machine that is not in progress.")
@click.option(
    "--older-than",
    type=DurationType(),
    metavar="DURATION",
    help="Delete by tags alone, without a journal: resources of runs that began this long ago (at least 1h) and are no "
    "longer in progress.",
)
@click.option(
    "--region", "in_regions", multiple=True, help="With --older-than: search this region; repeatable.  [default: all]"
)
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    metavar="NAME",
    help="With --older-than: also delete bundles in this bucket that no image is registered from; repeatable.",
)
@click.option("--local", "is_local", is_flag=True, help="Clean only runs on the local cloud.")
@click.option("--profile", help="With --older-than: use this AWS profile.")
@click.option("--endpoint-url", metavar="URL", help="With --older-than: use this endpoint instead of AWS.")
@click.option("--dry-run", is_flag=True, help="Print what would be deleted, and change nothing.")
def clean(
    runs: Sequence[str],
    is_all: bool,
    older_than: timedelta | None,
    in_regions: Sequence[str],
    buckets: Sequence[str],
    is_local: bool,
    profile: str | None,
    endpoint_url: str | None,
    dry_run: bool,
) -> int:
    """Delete the resources that runs still hold: instances, keys, groups, unfinished images.

    Never touches a run in progress, nor an image of a run that succeeded. Exit code 5 if something could not be
    deleted; run the command again to retry.
    """
    if older_than is not None:
        if runs or is_all:
            raise UsageError("--older-than goes by tags: it takes neither runs nor --all")
        chosen = chosen_cloud(is_local=is_local, profile=profile, endpoint_url=endpoint_url)
        return _sweep(chosen, older_than, in_regions, buckets, dry_run=dry_run)
    if in_regions or buckets or profile or endpoint_url:
        given = "--region, --bucket, --profile and --endpoint-url"
        raise UsageError(f"{given} go with --older-than: a journal knows its own cloud")
    if bool(runs) == is_all:
        raise UsageError("name a run, or give --all or --older-than", hint="imagepipe runs lists them")
    folders = _every(is_local=is_local) if is_all else _named(runs, is_local=is_local)
    held: list[StillHeld] = []
    failed: list[ImagepipeError] = []
    deleted = 0
    for folder in folders:
        try:
            released, still = _clean_one(folder, dry_run=dry_run)
        except ImagepipeError as error:
            if not is_all:
                raise
            # The other runs may be in another cloud, which answers.
            click.echo(f"{folder.name}: left as it is: {error}", err=True)
            if error.hint:
                click.echo(f"  hint: {error.hint}", err=True)
            failed.append(error)
            continue
        deleted += released
        held += still
    if not deleted and not held and not failed:
        click.echo("nothing to delete")
    for one in held:
        click.echo(f"still held: {one}", err=True)
    if held:
        click.echo("Later: the same command again", err=True)
    return UndoFailed.exit_code if held or failed else 0


def _sweep(
    chosen: CloudTarget, older_than: timedelta, in_regions: Sequence[str], buckets: Sequence[str], *, dry_run: bool
) -> int:
    """What dead runs left, of whatever machine; the exit code."""
    if older_than < YOUNGEST:
        raise UsageError("--older-than: at least 1h, as a younger run may not have said yet that it lives")
    clock = SystemClock()
    alive = {past.run.id for _, past in past_runs() if not isinstance(past, ImagepipeError) and past.is_alive}
    failed = found = 0
    with opened(chosen, region=in_regions[0] if in_regions else None, clock=clock) as regions:
        home = regions.session.region or FIRST_REGION
        places = _places(regions, home, buckets)
        which: SweepFilter = {"older_than": older_than, "now": clock.now(), "is_alive": alive.__contains__}
        looked_at = in_regions or regions.enabled(home)
        looks = [partial(left_over, regions, region, **which) for region in looked_at]
        looks += [
            partial(bundles_left_over, regions, region, bucket, beside=looked_at, **which)
            for bucket, region in places.items()
        ]
        for look in looks:  # bundles last: what is left of their images is cleaned up by then
            things = look()
            found += len(things)
            if dry_run:
                for thing in things:
                    click.echo(f"{thing.run}: would delete {thing.kind} {thing.id} in {thing.region}")
                continue
            for swept in sweep(things, regions, clock):
                failed += _say_swept(swept)
    if not found:
        click.echo("nothing to delete")
    return UndoFailed.exit_code if failed else 0


def _places(regions: Regions, home: str, buckets: Sequence[str]) -> dict[str, str]:
    """Where each bucket is. Raises CloudError."""
    found = {bucket: regions[home].s3.region_of(bucket) for bucket in buckets}
    if missing := [bucket for bucket, region in found.items() if region is None]:
        raise CloudError(f"there is no bucket {', '.join(missing)}", code="NoSuchBucket")
    return {bucket: region for bucket, region in found.items() if region is not None}


def _say_swept(swept: Swept) -> bool:
    """Whether it is still held."""
    thing = swept.thing
    what = f"{thing.kind} {thing.id} in {thing.region}"
    if swept.error is None:
        click.echo(f"{thing.run}: deleted: {what}")
        return False
    click.echo(f"still held: {what} ({swept.error}). Later: the same command again", err=True)
    return True


def _every(*, is_local: bool) -> list[Path]:
    """Runs that hold something, and are not going on."""
    found = []
    for folder, past in past_runs():
        if isinstance(past, ImagepipeError):
            click.echo(f"{folder.name}: left alone: {past}", err=True)
        elif past.is_alive:
            click.echo(f"{folder.name}: left alone: it is going on")
        elif past.open_claims() and (not is_local or "local" in past.run.cloud):
            found.append(folder)
    return found


def _named(words: Sequence[str], *, is_local: bool) -> list[Path]:
    folders = [folder_of(word) for word in words]
    for folder in folders:
        past = read(folder)
        if is_local and "local" not in past.run.cloud:
            raise UsageError(f"run {past.run.id} is not one on the local cloud", hint="leave out --local")
    return folders


def _clean_one(folder: Path, *, dry_run: bool) -> tuple[int, tuple[StillHeld, ...]]:
    """Return how many claims were deleted, and those that are still held."""
    past = read(folder)
    if past.is_alive:
        raise UsageError(f"run {past.run.id} is going on", hint="end it first: Ctrl-C cleans everything up by itself")
    claims = past.open_claims()
    if dry_run:
        for claim in reversed(claims):
            click.echo(f"{past.run.id}: would {'delete' if claim.id else 'look for'} {claim}")
        return len(claims), ()
    if not claims:
        return 0, ()
    clock = SystemClock()
    journal = Journal.reopen(folder, clock)
    chosen = CloudTarget.of(past.run.cloud)
    try:
        with opened(chosen, region=None, clock=clock) as regions, EventFile(folder / EVENTS_FILE) as file:
            chosen.check_account(regions)
            seen: list[AnyEvent] = []
            events = Events(past.run.id, clock, Masker(), [file, seen.append])
            held = undo(journal, Undoers(regions, clock).undoers(), events)
    finally:
        journal.close()
    deleted = {(event.kind, event.region, event.id) for event in seen if isinstance(event, Released)}
    _say(past.run.id, claims, held, deleted)
    return len(deleted), held


def _say(
    run: str, claims: Sequence[Claim], held: Sequence[StillHeld], deleted: Container[tuple[str, str, str]]
) -> None:
    still = {one.claim.key for one in held}
    for claim in reversed(claims):
        if (claim.kind, claim.region, claim.id or claim.token) in deleted:
            click.echo(f"{run}: deleted: {claim}")
        elif claim.key not in still:
            click.echo(f"{run}: was never created: {claim}")
