"""`--engine` and `--build-id`: the engine of a build. Loads nothing of Temporal."""

from __future__ import annotations

import click

from imagepipe.cli.output_format import F
from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Values of `engine_options`."""

    engine: str | None = None
    build_id: str | None = None


def engine_options(command: F) -> F:
    """Add `--engine` and `--build-id`."""
    command = click.option(
        "--build-id",
        metavar="ID",
        help="With --engine: name the build. If a build of this name exists, follow it instead of starting another one."
        "  [a new name]",
    )(command)
    return click.option(
        "--engine",
        metavar="temporal://HOST:PORT/NAMESPACE",
        envvar="IMAGEPIPE_ENGINE",
        help="Bake on the workers of this Temporal server (`imagepipe worker`), with shared state (--state). Needs"
        " imagepipe-ami[temporal].  [default: bake in this process]",
    )(command)
