"""`--format`: the result of a command as text, or as JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import click

F = TypeVar("F", bound=Callable[..., Any])
Format = Literal["text", "json"]


def format_option(*more: str, description: str = "Print the result in this format.") -> Callable[[F], F]:
    """Add `--format text|json`, and further formats."""

    def decorate(command: F) -> F:
        return click.option(
            "--format",
            "output",
            type=click.Choice([*get_args(Format), *more]),
            default="text",
            show_default=True,
            help=description,
        )(command)

    return decorate


def log_format_option(command: F) -> F:
    """Add `--format text|json` to a command that prints a log too."""
    return format_option(description="json: print one JSON object on standard output; the log goes to standard error.")(
        command
    )


def print_json(value: object) -> None:
    """Print the JSON result of a command on standard output."""
    is_utf_8 = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    click.echo(json.dumps(value, indent=2, ensure_ascii=not is_utf_8))
