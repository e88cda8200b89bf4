"""`imagepipe show`: what a run said, again."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from imagepipe.cli.run_store import CLOSING, folder_of
from imagepipe.cli.runs import state
from imagepipe.engine.events import FILE_NAME, StageFailed, read_events
from imagepipe.engine.journal import JournalState, read
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
    """Print the output of a run and the resources it still holds. RUN is an id, or the start of one."""
    folder = folder_of(run)
    past = read(folder)
    report, events = ConsoleReport(sys.stdout), folder / FILE_NAME
    failures = []
    for event in read_events(events) if events.exists() else ():  # it may have died before it said anything
        report(event)
        if isinstance(event, StageFailed):
            failures.append(event)
    click.echo("".join(f"{line}\n" for line in _closing(folder, failures)), nl=False)
    click.echo(f"{past.run.id}: {state(past)}")
    for claim in past.open_claims():
        click.echo(f"{'holds' if past.is_alive else 'still held'}: {claim}")
    if hint := _next(past):
        click.echo(hint)
    return 0


def _closing(folder: Path, failures: Sequence[StageFailed]) -> list[str]:
    """The last lines that the run printed; of one that did not come so far, its errors."""
    with suppress(OSError, UnicodeDecodeError):
        path = folder / CLOSING
        if path.is_file():
            return ["", *path.read_text(encoding="utf-8").splitlines()]
    lines = []
    for failure in failures:
        lines += [f"error: {failure.stage}: {failure.error}", *([f"  hint: {failure.hint}"] if failure.hint else [])]
    return lines


def _next(past: JournalState) -> str | None:
    """The command to go on with; None where nothing is left to do."""
    if past.is_alive or (past.outcome == "succeeded" and not past.open_claims()):
        return None
    if past.outcome is None:
        return (
            f"its process died: `imagepipe resume {past.run.id}` goes on with it,"
            f" `imagepipe clean {past.run.id}` deletes what it holds"
        )
    return f"delete what it holds: imagepipe clean {past.run.id}" if past.open_claims() else None
