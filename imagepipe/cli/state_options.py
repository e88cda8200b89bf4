"""The place of runs that a command line, the environment or a project names. Loads no cloud library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.cli.options import CloudOptions
from imagepipe.cli.output_format import F
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.spec.find import project_file
from imagepipe.state.location import StateLocation

if TYPE_CHECKING:
    from imagepipe.spec.loaded import LoadedSpec

LOCAL = "local"
"""Value of --state for files on this computer, whatever the project's file says."""


@dataclass(frozen=True, slots=True)
class StateOptions:
    """Values of `state_option`."""

    state: str | None = None


def state_option(command: F) -> F:
    """Add `--state`."""
    return click.option(
        "--state",
        metavar="s3://BUCKET/PREFIX",
        envvar="IMAGEPIPE_STATE",
        help="Keep runs in this bucket, for all machines, instead of on this computer (`local`).  [default: `state` in"
        " imagepipe.yaml, or local]",
    )(command)


def state_access_options(command: F) -> F:
    """Add `--state`, and the options for reaching its bucket."""
    options: tuple[Callable[[F], F], ...] = (
        state_option,
        click.option("--local", "is_local", is_flag=True, help="The bucket of --state is in the local cloud."),
        click.option("--profile", metavar="NAME", help="Use this AWS profile for --state, and for the run's cloud."),
        click.option("--endpoint-url", metavar="URL", help="The bucket of --state is at this endpoint, not on AWS."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def check_state_access(options: StateOptions, cloud: CloudOptions) -> None:
    """Raise UsageError for `--local`, `--profile` or `--endpoint-url` of a command that has no other use for them."""
    if cloud != CloudOptions() and not is_shared(options):
        raise UsageError(
            "--local, --profile and --endpoint-url are for the bucket of --state, but the runs are on this computer",
            hint="leave them out, or pass --state s3://BUCKET/PREFIX",
        )


def check_state_of_specs(options: StateOptions, specs: Sequence[LoadedSpec]) -> None:
    """Raise UsageError if the project of a spec keeps runs elsewhere, and nothing on the command line says where."""
    if options.state:
        return
    own = _project_of_folder()[0]
    for spec in specs:
        if (theirs := spec.project.state) is not None and theirs != own:
            raise UsageError(
                f"the project of {spec.file} keeps its runs in {theirs}, and this folder's project does not",
                hint=f"run the command in the project's folder, or pass --state {theirs}",
            )


def location_of(options: StateOptions) -> StateLocation | None:
    """Return the place of shared state: of the command line, the environment or the project; None for local files."""
    project, kms_key = _project_of_folder() if options.state != LOCAL else (None, None)
    url = options.state or project
    if url is None or url == LOCAL:
        return None
    return StateLocation.parse(url, kms_key)


def is_shared(options: StateOptions) -> bool:
    """Return whether runs are in a bucket."""
    return location_of(options) is not None


def _project_of_folder() -> tuple[str | None, str | None]:
    """Return `state` and `state_kms_key` of the working folder's project. Raises SpecError."""
    beside = Path.cwd() / "spec.yaml"
    if project_file(beside) is None:
        return None, None
    from imagepipe.spec.load import load_project  # loads pydantic, which most folders do not need

    project = load_project(beside)
    return project.state, project.state_kms_key
