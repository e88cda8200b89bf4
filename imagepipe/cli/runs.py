"""`imagepipe runs`: list the runs of this machine, with the state of each and the resources it still holds."""

from __future__ import annotations

from pathlib import Path

import click

from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.cli.run_store import past_runs
from imagepipe.engine.journal import Claim, JournalState
from imagepipe.errors import ImagepipeError


@click.command(
    epilog="""\b
Examples:
  imagepipe runs
  imagepipe runs --format json
  imagepipe clean RUN       delete the resources of a dead run
"""
)
@format_option()
def runs(output: Format) -> int:
    """List the runs of this machine, oldest first, and the resources that each still holds."""
    rows = list(past_runs())
    if output == "json":
        print_json([_row(folder, past) for folder, past in rows])
        return 0
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
    """Return the state of a run in one word."""
    if past.is_alive:
        return "running"
    return past.outcome or "dead"


def run_row(past: JournalState) -> dict[str, object]:
    """Describe a run for a result in JSON."""
    return {
        "run": past.run.id,
        "started": past.run.started,
        "state": state(past),
        "specs": list(past.run.specs),
        "held": [_held(claim) for claim in past.open_claims()],
    }


def _row(folder: Path, past: JournalState | ImagepipeError) -> dict[str, object]:
    if isinstance(past, ImagepipeError):
        return {"run": folder.name, "state": "unreadable", "error": str(past)}
    return run_row(past)


def _held(claim: Claim) -> dict[str, object]:
    return {"kind": claim.kind, "id": claim.id, "region": claim.region, "token": claim.token}
