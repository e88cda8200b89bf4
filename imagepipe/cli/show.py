"""`imagepipe show`: what a run said, again."""

from __future__ import annotations

import sys

import click

from imagepipe.cli.past import folder_of
from imagepipe.cli.runs import state
from imagepipe.engine.events import FILE_NAME, read_events
from imagepipe.engine.journal import read
from imagepipe.report.console import ConsoleReport


@click.command(
    epilog="""\b
Examples:
  imagepipe show 7f3a91c2
  imagepipe show 7f3a | less
"""
)
@click.argument("run", metavar="RUN")
def show(run: str) -> int:
    """Print what a run said, and what it still holds: by its id, or how that begins."""
    folder = folder_of(run)
    past = read(folder)
    report, events = ConsoleReport(sys.stdout), folder / FILE_NAME
    for event in read_events(events) if events.exists() else ():  # it may have died before it said anything
        report(event)
    click.echo(f"{past.run.id}: {state(past)}")
    for claim in past.open_claims():
        click.echo(f"{'holds' if past.is_alive else 'still held'}: {claim}")
    return 0
