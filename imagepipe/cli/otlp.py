"""The traces of a build for OpenTelemetry: the check of `--otlp`."""

from __future__ import annotations

from importlib import import_module

import click

from imagepipe.errors import UsageError
from imagepipe.extras import command_for_extra

LIVE = "imagepipe.report.otlp_live"
"""The module that needs the libraries of the extra `otlp`."""


def with_extra(ctx: click.Context, param: click.Parameter, is_wanted: bool) -> bool:
    """Return the value of `--otlp`. Raises UsageError if it is set and a library of the extra is not installed."""
    if is_wanted:
        try:
            import_module(LIVE)
        except ImportError as error:
            hint = command_for_extra("otlp")
            raise UsageError(f"--otlp needs a library that is not installed: {error.name}", hint=hint) from error
    return is_wanted
