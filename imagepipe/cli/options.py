"""Options that several commands share, and their values from the command line and the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from imagepipe.cli.output_format import F
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.names import IMAGE_ID
from imagepipe.regular_files import exists
from imagepipe.spec.explain import nearest
from imagepipe.spec.find import spec_files
from imagepipe.spec.keys import SpecKey, split_selection
from imagepipe.spec.load import load_var_file
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.variables import Given


def is_image_id(word: str) -> bool:
    """Return whether a word is the id of an image. A spec may be named `ami-base.yaml`: the prefix is not enough."""
    return IMAGE_ID.fullmatch(word) is not None


@dataclass(frozen=True, slots=True)
class VariableOptions:
    """Values of `variable_options`."""

    variables: tuple[str, ...]
    var_files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """Values of `cloud_options`."""

    is_local: bool = False
    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None
    role: str | None = None


def variable_options(command: F) -> F:
    """Add `--var` and `--var-file`."""
    command = click.option(
        "--var-file",
        "var_files",
        multiple=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Read variables from a YAML file; repeatable, the last one wins.",
    )(command)
    return click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="Set a variable; repeatable.")(
        command
    )


def region_option(command: F) -> F:
    """Add `--region`, which overrides the spec's."""
    return click.option(
        "--region",
        metavar="REGION",
        help="Build in this region instead of launch.region; publish.regions do not change.",
    )(command)


def target_options(command: F) -> F:
    """Add `--local`, `--profile` and `--endpoint-url`."""
    for option in reversed(
        (
            click.option(
                "--local", "is_local", is_flag=True, help="Use the local cloud on this computer instead of AWS."
            ),
            click.option("--profile", metavar="NAME", help="Use this AWS profile."),
            click.option("--endpoint-url", metavar="URL", help="Use this EC2 endpoint instead of AWS."),
        )
    ):
        command = option(command)
    return command


def cloud_options(command: F) -> F:
    """Add `--local`, `--profile`, `--endpoint-url`, `--assume-role` and `--region`."""
    return target_options(
        region_option(role_option("Assume this role; credentials are refreshed during the build.")(command))
    )


def role_option(description: str = "Assume this role.") -> Callable[[F], F]:
    """Add `--assume-role`."""
    return click.option("--assume-role", "role", metavar="ARN", envvar="IMAGEPIPE_ASSUME_ROLE", help=description)


def read_variables(options: VariableOptions) -> Given:
    """Return the values of variables from the command line and the environment. Raises UsageError and SpecError."""
    command_line: dict[str, str] = {}
    for item in options.variables:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--var {item}: write --var NAME=VALUE")
        command_line[name] = value
    files: dict[str, Any] = {}
    for file in options.var_files:
        files |= load_var_file(file)
    return Given(command_line, files, dict(os.environ))


@dataclass(frozen=True, slots=True)
class NamedSpecs:
    """The spec files that the command line names, and the variants to which it is restricted."""

    files: list[Path]
    selections: tuple[tuple[str, SpecKey], ...] = ()
    """File, resolved, and axes of the variants, for each word with brackets: `web.yaml[release=bookworm]`."""

    @classmethod
    def of(cls, words: Sequence[str]) -> NamedSpecs:
        """Find the files from the working directory. Raises SpecError, naming every word that was not found."""
        files: dict[Path, Path] = {}
        selections: list[tuple[str, SpecKey]] = []
        whole: set[str] = set()
        for word in words or [""]:
            name, axes = (word, ()) if exists(Path(word)) else split_selection(word)
            for file in spec_files([name] if words else [], folder=Path()):
                files.setdefault(file.resolve(), file)
                if axes:
                    selections.append((str(file.resolve()), SpecKey("", axes)))
                else:
                    whole.add(str(file.resolve()))
        return cls(list(files.values()), tuple(each for each in selections if each[0] not in whole))


def unknown_variables(known: Sequence[frozenset[str]], given: Given) -> None:
    """Raise UsageError for a `--var` that no spec has, because a typing error would silently keep the default.

    Warn about a name in a variable file that no spec has, if it resembles one that a spec has.
    """
    every = frozenset().union(*known)
    for name in given.command_line:
        if name not in every:
            raise UsageError(
                f"--var {name}: no spec has a variable '{name}'",
                hint=f"known variables: {', '.join(sorted(every)) or 'none'}",
            )
    for name in given.files:  # a file may serve many specs, so only a probable typing error is reported
        if name not in every and (meant := nearest(name, every)):
            click.echo(f"warning: --var-file: no spec has a variable '{name}'; did you mean '{meant}'?", err=True)


def check_region(region: str, loaded: Sequence[LoadedSpec]) -> None:
    """Raise UsageError for a --region that this version does not know."""
    from imagepipe.spec.ec2_rules import region_finding

    if all(spec.project.allow_unknown_region for spec in loaded):
        return
    for _, message in region_finding(region, ()):
        raise UsageError(f"--region: {message}")


def state_folder() -> Path:
    """Return the folder of all runs. Raises UsageError if there is no home folder."""
    root = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        return Path(root).expanduser().absolute() / "imagepipe" / "runs"
    except RuntimeError as error:
        raise UsageError(
            "no home folder was found for the journals of runs", hint="set HOME, or XDG_STATE_HOME"
        ) from error
