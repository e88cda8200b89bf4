"""`imagepipe provisioners`: list the provisioners that a spec can use, or describe one of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.errors import SpecError, UsageError
from imagepipe.spec.explain import did_you_mean
from imagepipe.spec.find import provisioner_folders
from imagepipe.spec.models import Parameter
from imagepipe.spec.provisioners import ProvisionerSummary, default_of, summarize

HEADER = ("NAME", "WHERE", "DESCRIPTION")


@click.command(
    epilog="""\b
Examples:
  imagepipe provisioners
  imagepipe provisioners users
  imagepipe provisioners users --format json
"""
)
@click.argument("name", required=False)
@format_option()
def provisioners(name: str | None, output: Format) -> int:
    """List the provisioners that a spec here can use; with NAME, print one's parameters, steps and an example.

    A spec finds them in `provisioners/` of its own folder and of every folder above it, and among those that imagepipe
    ships. Of two with one name, it uses the nearest.
    """
    # Specs are in specs/ by default, and one that is there finds all that a spec beside it finds.
    here = Path.cwd()
    folders = provisioner_folders(here / "specs" if (here / "specs").is_dir() else here)
    if name is None:
        found = [summarize(each, folder) for each, folder in folders.items()]
        if output == "json":
            print_json([_as_json(each) for each in found])
        else:
            _print_list(found)
        return 0
    if name not in folders:
        raise UsageError(
            f"no provisioner '{name}'{did_you_mean(name, folders)}",
            hint=f"known provisioners: {', '.join(folders) or 'none'}",
        )
    summary = summarize(name, folders[name])
    if summary.problems:
        raise SpecError(summary.problems)
    if output == "json":
        print_json(_as_json(summary))
    else:
        click.echo(_text(summary), nl=False)
    return 0


def _print_list(found: Sequence[ProvisionerSummary]) -> None:
    rows = [HEADER, *((each.name, _where(each), _first_sentence(each)) for each in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _first_sentence(summary: ProvisionerSummary) -> str:
    """Return the first sentence of the description; of a broken provisioner, its first problem."""
    if summary.problems:
        return f"broken: {summary.problems[0].location()}: {summary.problems[0].message}"
    return re.split(r"(?<=[.;:])\s", summary.description, maxsplit=1)[0].rstrip(".;:")


def _where(summary: ProvisionerSummary) -> str:
    """Return the folder, relative to the working directory if it is below it."""
    try:
        return str(summary.folder.relative_to(Path.cwd()))
    except ValueError:
        return "shipped with imagepipe" if summary.is_shipped else str(summary.folder)


def _text(summary: ProvisionerSummary) -> str:
    lines = [f"{summary.name}: {summary.description}", f"where: {_where(summary)}", ""]
    if summary.parameters:
        lines.append("parameters:")
        rows = [(name, _type(each), each.description) for name, each in summary.parameters.items()]
        widths = [max(len(row[index]) for row in rows) for index in (0, 1)]
        lines += [f"  {name:<{widths[0]}}  {kind:<{widths[1]}}  {text}" for name, kind, text in rows]
        lines.append("")
    lines.append("steps:")
    lines += [f"  {number}. {step.name} ({step.kind})" for number, step in enumerate(summary.steps, start=1)]
    lines += ["", "example:", *(f"  {line}" for line in summary.example().splitlines())]
    return "\n".join(lines) + "\n"


def _type(parameter: Parameter) -> str:
    if parameter.required:
        return f"{parameter.type}, required"
    return f"{parameter.type}, default {default_of(parameter) or 'none'}"


def _as_json(summary: ProvisionerSummary) -> dict[str, object]:
    return {
        "name": summary.name,
        "description": summary.description,
        "folder": str(summary.folder),
        "is_shipped": summary.is_shipped,
        "parameters": [
            {
                "name": name,
                "type": each.type,
                "required": each.required,
                "default": each.default,
                "description": each.description,
            }
            for name, each in summary.parameters.items()
        ],
        "steps": [{"kind": step.kind, "name": step.name} for step in summary.steps],
        "example": summary.example(),
        "problems": [problem.text() for problem in summary.problems],
    }
