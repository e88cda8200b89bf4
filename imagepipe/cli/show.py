"""`imagepipe show`: print the output of a run again."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from imagepipe.cli import streams
from imagepipe.cli.options import CloudOptions
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run_store import run_of
from imagepipe.cli.runs import run_row, state
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, check_state_access, state_access_options
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass
from imagepipe.engine.events import StageFailed
from imagepipe.engine.journal import JournalState, read
from imagepipe.engine.journal_store import CLOSING, JournalStore
from imagepipe.errors import ImagepipeError
from imagepipe.report.console import ConsoleReport


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """Arguments and options of `imagepipe show`."""

    run: str
    output: Format
    otlp: bool
    state: StateOptions
    cloud: CloudOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe show 7f3a91c2
  imagepipe show latest | less
  imagepipe show 7f3a91c2 --format json
  imagepipe show 7f3a91c2 --otlp | curl --data @- -H 'Content-Type: application/json' localhost:4318/v1/traces
"""
)
@click.argument("run", metavar="RUN")
@state_access_options
@format_option(description="json: print the run's state, errors, last lines and resources, without its log.")
@click.option("--otlp", is_flag=True, help="Print the run as OpenTelemetry traces instead, in OTLP's JSON encoding.")
@pass_options(ShowOptions)
def show(options: ShowOptions) -> int:
    """Print the output of a run and the resources it still holds.

    RUN is the id of a run, the start of one, or `latest`.
    """
    check_state_access(options.state, options.cloud)
    with open_state(options.state, options.cloud, SystemClock()) as store:
        if options.otlp:
            return _show_traces(store, run_of(store, options.run))
        return _show(store, run_of(store, options.run), options.output)


def _show_traces(store: JournalStore, run: str) -> int:
    from imagepipe.cli.run_report import run_report
    from imagepipe.report.otlp import otlp

    print_json(otlp(run_report(store, run), os.environ.get("TRACEPARENT", "")))
    return 0


def _show(store: JournalStore, run: str, output: Format) -> int:
    past = read(store, run)
    report = ConsoleReport(sys.stdout, has_colours=streams.has_colours(sys.stdout))
    failures = []
    for event in store.events(run):
        if output == "text":
            report(event)
        if isinstance(event, StageFailed):
            failures.append(event)
    closing = _closing(store, run, failures)
    if output == "json":
        print_json(
            {
                **run_row(past, SystemClock()),
                "errors": [{"stage": each.stage, "error": each.error, "hint": each.hint} for each in failures],
                "closing": [line for line in closing if line],
                "next": next_command(past),
                "folder": store.place(run),
            }
        )
        return 0
    click.echo("".join(f"{line}\n" for line in closing), nl=False)
    click.echo(f"{past.run.id}: {state(past)}")
    for claim in past.open_claims():
        click.echo(f"{'holds' if past.is_alive else 'still held'}: {claim}")
    if hint := next_command(past):
        click.echo(hint)
    return 0


def _closing(store: JournalStore, run: str, failures: Sequence[StageFailed]) -> list[str]:
    """Return the last lines that the run printed, or its errors if it did not get that far."""
    with suppress(ImagepipeError, UnicodeDecodeError):
        if (content := store.document(run, CLOSING)) is not None:
            return ["", *content.decode("utf-8").splitlines()]
    lines = []
    for failure in failures:
        lines += [f"error: {failure.stage}: {failure.error}", *([f"  hint: {failure.hint}"] if failure.hint else [])]
    return lines


def next_command(past: JournalState) -> str | None:
    """Return the next command for the user; None if nothing is left to do."""
    if past.is_alive or (past.outcome == "succeeded" and not past.open_claims()):
        return None
    if past.outcome is None and past.run.given:
        return (
            f"its process died: `imagepipe resume {past.run.id}` continues it,"
            f" `imagepipe clean {past.run.id}` deletes what it holds"
        )
    if past.open_claims():
        return f"delete what it holds: imagepipe clean {past.run.id}"
    return "its process died, and it holds nothing" if past.outcome is None else None
