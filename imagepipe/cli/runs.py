"""`imagepipe runs`: what ran here, how it ended, and what it still holds."""

from __future__ import annotations

import click

from imagepipe.cli.run_store import past_runs
from imagepipe.engine.journal import JournalState
from imagepipe.errors import ImagepipeError


@click.command(
    epilog="""\b
Examples:
  imagepipe runs
  imagepipe clean RUN       delete the resources of a dead run
"""
)
def runs() -> int:
    """List the runs of this machine, oldest first, and the resources that each still holds."""
    rows = list(past_runs())
    if not rows:
        click.echo("no runs yet")
        return 0
    for folder, past in rows:
        if isinstance(past, ImagepipeError):
            click.echo(f"{folder.name}  unreadable: {past}")
            continue
        started = past.run.started[:19].replace("T", " ")
        click.echo(f"{past.run.id}  {started}  {state(past):<9}  {', '.join(past.run.specs)}")
        for claim in [] if past.is_alive else past.open_claims():
            click.echo(f"          still held: {claim}")
    return 0


def state(past: JournalState) -> str:
    """How a run ended, in one word."""
    if past.is_alive:
        return "running"
    return past.outcome or "dead"
