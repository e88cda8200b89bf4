"""Arguments and options of a command in one dataclass."""

from __future__ import annotations

from dataclasses import dataclass

import click
from click.testing import CliRunner

from imagepipe.cli.options import CloudOptions, VariableOptions, cloud_options, variable_options
from imagepipe.cli.pass_options import pass_options


@dataclass(frozen=True, slots=True)
class _Options:
    word: str
    cloud: CloudOptions
    variables: VariableOptions


@click.command()
@click.argument("word")
@cloud_options
@variable_options
@pass_options(_Options)
def _command(options: _Options) -> None:
    """Print the options."""
    click.echo(repr(options))


def test_a_command_gets_its_parameters_and_those_of_the_dataclasses_in_it() -> None:
    words = ["hello", "--local", "--region", "eu-west-1", "--var", "a=1", "--var", "b=2"]
    result = CliRunner().invoke(_command, words)
    cloud = CloudOptions(is_local=True, region="eu-west-1")
    assert result.output == f"{_Options('hello', cloud, VariableOptions(('a=1', 'b=2'), ()))!r}\n"


def test_the_help_of_the_command_is_its_own() -> None:
    assert "Print the options." in CliRunner().invoke(_command, ["--help"]).output
