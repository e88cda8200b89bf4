"""`imagepipe report`: write reports of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from imagepipe.cli.options import CloudOptions
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.report_folder import FILE_NAMES, Format, write_reports
from imagepipe.cli.run_report import run_report
from imagepipe.cli.run_store import run_of
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, check_state_access, state_access_options
from imagepipe.clock import SystemClock
from imagepipe.dataclass import dataclass


class FormatsType(click.ParamType):  # type: ignore[type-arg]  # generic only in its stubs
    """Formats of reports, separated by commas."""

    name = "formats"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Format, ...]:
        words = [word.strip() for word in str(value).split(",")]
        if wrong := [word for word in words if word not in FILE_NAMES]:
            self.fail(f"{wrong[0]!r} is not a format: choose from {', '.join(get_args(Format))}", param, ctx)
        return tuple(format for format in FILE_NAMES if format in words)


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Arguments and options of `imagepipe report`."""

    run: str
    folder: Path | None
    formats: Sequence[Format]
    state: StateOptions
    cloud: CloudOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe report latest
  imagepipe report 7f3a91c2 --output public/
  imagepipe report 7f3a91c2 --format html,junit
  imagepipe report latest --state s3://our-state/team
"""
)
@click.argument("run", metavar="RUN")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the files into this folder.  [default: report-RUN]",
)
@click.option(
    "--format",
    "formats",
    type=FormatsType(),
    default=",".join(FILE_NAMES),
    metavar="FORMATS",
    help=f"Write only these, separated by commas: {', '.join(FILE_NAMES)}.  [default: all]",
)
@state_access_options
@pass_options(ReportOptions)
def report(options: ReportOptions) -> int:
    """Write reports of a run from its events: a page for people, and files for programs and CI systems.

    RUN is the id of a run, the start of one, or `latest`. It may be in progress, or its process may have died.

    The page, report.html, is one file that loads nothing from elsewhere. It has the failure, a timeline with the
    critical path, the graph, every log with a search, tests, and the resources that were created and deleted.
    """
    check_state_access(options.state, options.cloud)
    with open_state(options.state, options.cloud, SystemClock()) as store:
        found = run_report(store, run_of(store, options.run))
    folder = options.folder or Path(f"report-{found.run}")
    for path in write_reports(found, folder, options.formats):
        click.echo(path)
    if "junit" in options.formats and not found.has_graph:
        click.echo(
            "note: no junit.xml: an old version of imagepipe wrote this run, without the names of its tests", err=True
        )
    return 0
