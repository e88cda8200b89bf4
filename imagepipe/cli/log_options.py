"""The log of a run: how it is printed here, and a file that keeps it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import click

from imagepipe.cli import streams
from imagepipe.cli.output_format import F
from imagepipe.dataclass import dataclass
from imagepipe.engine.events import AnyEvent, Sink
from imagepipe.errors import UsageError
from imagepipe.report.console import ConsoleReport


@dataclass(frozen=True, slots=True)
class LogOptions:
    """Values of `log_options`."""

    is_quiet: bool = False
    is_verbose: bool = False
    log_file: Path | None = None


def log_options(command: F) -> F:
    """Add `--quiet`, `--verbose` and `--log-file`."""
    options: tuple[Callable[[F], F], ...] = (
        click.option("-q", "--quiet", "is_quiet", is_flag=True, help="Print no log: only the result, and errors."),
        click.option(
            "-v",
            "--verbose",
            "is_verbose",
            is_flag=True,
            help="Also log created resources, and the time of boots, commands, transfers and waits.",
        ),
        click.option(
            "--log-file",
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="Also write the log, as --verbose prints it, into this file.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def log_sinks(options: LogOptions, stream: IO[str]) -> Iterator[list[Sink]]:
    """Yield the sinks that print a run's log on a stream, and into a file if one is named. Raises UsageError."""
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if options.log_file:
            try:
                file = stack.enter_context(options.log_file.open("w", encoding="utf-8", errors="backslashreplace"))
            except OSError as error:
                raise UsageError(f"opening the log file {options.log_file}: {error.strerror}") from error
            sinks.append(ConsoleReport(file, has_colours=False, is_verbose=True))
        sinks.append(stack.enter_context(_printer(options, stream)))
        yield sinks


@contextmanager
def _printer(options: LogOptions, stream: IO[str]) -> Iterator[Sink]:
    if options.is_quiet:
        yield _no_log
    elif os.environ.get("GITHUB_ACTIONS") == "true":
        from imagepipe.report.folded import FoldedReport, GitHubFolds

        yield FoldedReport(stream, GitHubFolds(), is_verbose=options.is_verbose)
    elif os.environ.get("GITLAB_CI") == "true":
        from imagepipe.report.folded import FoldedReport, GitLabFolds

        yield FoldedReport(stream, GitLabFolds(), is_verbose=options.is_verbose)
    elif stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI"):
        from imagepipe.report.live import LiveReport

        live = LiveReport(stream, is_verbose=options.is_verbose)
        with streams.spoken_by(live.say):
            try:
                yield live
            finally:
                live.close()
    else:
        yield ConsoleReport(stream, has_colours=streams.has_colours(stream), is_verbose=options.is_verbose)


def _no_log(event: AnyEvent) -> None:
    """Drop an event of a run with `--quiet`."""
