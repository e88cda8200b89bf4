"""Options of the commands that run builds, `build` and `resume`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import click

from imagepipe.cli.log_options import LogOptions, log_options
from imagepipe.cli.otlp import with_extra
from imagepipe.cli.output_format import F, Format, log_format_option
from imagepipe.dataclass import dataclass

KEEP, KEPT_FOR = "--keep-on-failure", "24h"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of `build` and `resume` that the run uses."""

    output: Format
    """Format of the result on standard output."""
    junit: Path | None = None
    report: Path | None = None
    """Folder for reports of the run."""
    otlp: bool = False
    """True to send spans to an OpenTelemetry collector during the run."""
    timeout: timedelta | None = None
    keep_on_failure: timedelta | None = None
    """Time for which a failed run's resources are kept; None deletes them at once."""
    fail_fast: bool = False
    """True if the failure of one spec stops all others."""
    shown: LogOptions = field(default_factory=LogOptions)

    @property
    def log(self) -> IO[str]:
        """The stream of the run's log: standard error if the result is JSON."""
        return sys.stderr if self.output == "json" else sys.stdout


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic only in its stubs
    """A duration, as in specs: `90m`, `3h`, `2d`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        found = re.fullmatch(r"(\d{1,6})([smhd])", str(value))
        if found is None or not int(found.group(1)):
            self.fail(f"{value!r} is not a duration: write 90m, 3h or 2d", param, ctx)
        return timedelta(seconds=int(found.group(1)) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found.group(2)])


GROUPS: Mapping[str, Sequence[str]] = {
    "Which images": ("only", "with_dependents", "force", "plan_file"),
    "Where to bake them": ("is_local", "profile", "endpoint_url", "region", "role"),
    "Variables": ("variables", "var_files"),
    "Log, result and reports": ("output", "is_quiet", "is_verbose", "log_file", "junit", "report", "otlp"),
    "Failures": ("fail_fast", "keep_on_failure", "timeout"),
    "More than one machine": ("state", "engine", "build_id"),
}
"""Parameters of `build` and `resume`, by the heading in their help."""


class RunCommand(click.Command):
    """A command with the options of a run, which its help lists in groups.

    Its `--keep-on-failure` takes a duration only after an equals sign, never from the next word.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        left = {each.name: row for each in options if (row := each.get_help_record(ctx)) is not None}
        for title, names in GROUPS.items():
            rows = [left.pop(name) for name in names if name in left]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Options"):
            formatter.write_dl(list(left.values()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"{KEEP}={KEPT_FOR}" if word == KEEP else word for word in args])


def run_options(command: F) -> F:
    """Add the options of RunOptions, `--keep-on-failure[=2h]` among them, to a RunCommand."""
    options: tuple[Callable[[F], F], ...] = (
        log_format_option,
        log_options,
        click.option(
            "--junit",
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write JUnit XML with a case for each build and each test, whether or not they succeed.",
        ),
        click.option(
            "--report",
            metavar="DIR",
            type=click.Path(path_type=Path, file_okay=False),
            help="Write reports of the run into this folder when it ends, even if it fails: HTML, JSON, Markdown, JUnit"
            " and others. In GitHub Actions, add to the job's summary and outputs too.",
        ),
        click.option(
            "--otlp",
            is_flag=True,
            callback=with_extra,
            help="Send a trace to an OpenTelemetry collector during the build, span by span: to"
            " OTEL_EXPORTER_OTLP_ENDPOINT, or to port 4318 of this computer. Needs the extra imagepipe-ami[otlp].",
        ),
        click.option(
            "--timeout",
            type=DurationType(),
            metavar="DURATION",
            help="Stop the build after this time and clean up, as after Ctrl-C.  [never]",
        ),
        click.option(
            KEEP,
            type=DurationType(),
            metavar="[=DURATION]",
            help="After a failure, keep everything and print how to log in; `clean --older-than` spares it for this"
            f" long.  [{KEPT_FOR} if no duration is given]",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
