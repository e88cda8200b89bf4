"""`imagepipe clean`: gives back what a dead or failed run holds, by its journal; with the code of a build's undo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from imagepipe.cli.cloud import Chosen, opened
from imagepipe.cli.past import folder_of, past_runs
from imagepipe.clock import SystemClock
from imagepipe.engine.events import EventFile, Events
from imagepipe.engine.journal import Claim, Journal, read
from imagepipe.engine.undo import StillHeld, undo
from imagepipe.errors import ImagepipeError, UndoFailed, UsageError
from imagepipe.holdings import Holdings
from imagepipe.masking import Masker


@click.command(
    epilog="""\b
Examples:
  imagepipe clean 7f3a91c2
  imagepipe clean --all
  imagepipe clean --all --dry-run
"""
)
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--all", "is_all", is_flag=True, help="Every run of this machine that is not going on.")
@click.option("--local", "is_local", is_flag=True, help="Only runs on the local cloud.")
@click.option("--dry-run", is_flag=True, help="Say what would be given back, and change nothing.")
def clean(runs: Sequence[str], is_all: bool, is_local: bool, dry_run: bool) -> int:
    """Give back what runs still hold: instances, keys, groups, unfinished images.

    Never touches a run that is going on, nor an image of a run that succeeded. Exit code 5 where something could
    not be given back; the same command again tries again.
    """
    if bool(runs) == is_all:
        raise UsageError("name a run, or give --all", hint="imagepipe runs lists them")
    folders = _every(is_local=is_local) if is_all else _named(runs, is_local=is_local)
    held: list[StillHeld] = []
    failed: list[ImagepipeError] = []
    given_back = 0
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
        given_back += released
        held += still
    if not given_back and not held and not failed:
        click.echo("nothing to give back")
    for one in held:
        click.echo(f"still held: {one}", err=True)
    if held:
        click.echo("Later: the same command again", err=True)
    return UndoFailed.exit_code if held or failed else 0


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
    """How many claims were given back, and what is still held."""
    past = read(folder)
    if past.is_alive:
        raise UsageError(f"run {past.run.id} is going on", hint="end it first: Ctrl-C gives everything back by itself")
    claims = past.open_claims()
    if dry_run:
        for claim in reversed(claims):
            click.echo(f"{past.run.id}: would give back {claim}")
        return len(claims), ()
    if not claims:
        return 0, ()
    clock = SystemClock()
    journal = Journal.reopen(folder, clock)
    chosen = Chosen.of(past.run.cloud)
    try:
        with opened(chosen, region=None, clock=clock) as regions, EventFile(folder / "events.jsonl") as file:
            chosen.check_account(regions)
            events = Events(past.run.id, clock, Masker(), [file])
            held = undo(journal, Holdings(regions, clock).undoers(), events)
    finally:
        journal.close()
    _say(past.run.id, claims, held)
    return len(claims) - len(held), held


def _say(run: str, claims: Sequence[Claim], held: Sequence[StillHeld]) -> None:
    still = {one.claim.key for one in held}
    for claim in reversed(claims):
        if claim.key not in still:
            click.echo(f"{run}: given back: {claim}")
