"""The folder of a run's reports, with a file for each format."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.files import EVERYONE, write_atomically

if TYPE_CHECKING:
    from imagepipe.cli.run import Run
    from imagepipe.report.model import RunReport

Format = Literal["html", "json", "markdown", "trace", "junit", "otlp", "prometheus", "github-output", "dotenv"]
FILE_NAMES: dict[Format, str] = {
    "html": "report.html",
    "json": "report.json",
    "markdown": "summary.md",
    "trace": "trace.json",
    "junit": "junit.xml",
    "otlp": "otlp.json",
    "prometheus": "metrics.prom",
    "github-output": "github-output.txt",
    "dotenv": "images.env",
}


def clear_folder(folder: Path | None) -> None:
    """Create the folder of a run's reports, and delete the files of an earlier run, which would look like this one's.

    Raises UsageError if the folder cannot be written, before the run and not after an hour's build.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILE_NAMES.values():
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(
            f"--report {folder}: cannot be written: {error.strerror}",
            hint="name a folder that you may write to, on a disk with free space",
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--report {folder}: cannot be written", hint="name a folder that you may write to")


def write_reports(report: RunReport, folder: Path, formats: Sequence[Format]) -> list[Path]:
    """Write the reports of a run, and return their paths. Each file has its old or its new content.

    Raises ImagepipeError. JUnit is left out of the report of an old run, whose tests are not known.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for format in formats:
            if format == "junit" and not report.has_graph:
                continue
            path = folder / FILE_NAMES[format]
            write_atomically(path, content_of(report, format), mode=EVERYONE)
            written.append(path)
    except OSError as error:
        raise ImagepipeError(
            f"writing reports of run {report.run} into {folder}: {error.strerror}",
            hint="free space on the disk, or name another folder; the run itself is kept, so its reports can be written"
            f" at any time: imagepipe report {report.run}",
        ) from error
    return written


def content_of(report: RunReport, format: Format) -> bytes:
    """Return a report as UTF-8, whatever the locale is."""
    return _renderer(format)(report)


def _renderer(format: Format) -> Callable[[RunReport], bytes]:
    """Return the function for a format; only its module is loaded."""
    match format:
        case "html":
            from imagepipe.report.html import page

            return lambda report: page(report).encode()
        case "json":
            from imagepipe.report.summary_json import summary

            return lambda report: _json(summary(report))
        case "markdown":
            from imagepipe.report.markdown import markdown

            return lambda report: markdown(report).encode()
        case "trace":
            from imagepipe.report.trace import trace

            return lambda report: _json(trace(report))
        case "junit":
            from imagepipe.report.junit import junit_of

            return junit_of
        case "otlp":
            from imagepipe.report.otlp import otlp

            return lambda report: _json(otlp(report, os.environ.get("TRACEPARENT", "")))
        case "prometheus":
            from imagepipe.report.prometheus import prometheus

            return lambda report: prometheus(report).encode()
        case "github-output":
            from imagepipe.report.ci_files import github_output

            return lambda report: github_output(report).encode()
        case "dotenv":
            from imagepipe.report.ci_files import dotenv

            return lambda report: dotenv(report).encode()


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def write_own_report(run: Run) -> None:
    """Write the reports that `--report` of a build names, if it does. A problem is a warning: the build has ended."""
    folder = run.options.report
    if folder is None or run.is_lost:
        return
    from imagepipe.cli.run_report import run_report

    try:
        report = run_report(run.store, run.id)
        write_reports(report, folder, tuple(FILE_NAMES))
        _append_for_github(report)
    except Exception as error:  # noqa: BLE001 - a report must never change the result of a build
        text = str(error) if isinstance(error, ImagepipeError) else f"{type(error).__name__}: {error}"
        click.echo(f"warning: {text}", err=True)
        return
    click.echo(f"reports: {folder}", err=True)


def _append_for_github(report: RunReport) -> None:
    """Add the summary and the outputs to those of the job, if this is GitHub Actions. Raises OSError."""
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return
    from imagepipe.report.ci_files import github_output
    from imagepipe.report.markdown import markdown

    for variable, text in (("GITHUB_STEP_SUMMARY", markdown(report)), ("GITHUB_OUTPUT", github_output(report))):
        if path := os.environ.get(variable):
            with Path(path).open("ab") as file:
                file.write(text.encode())
