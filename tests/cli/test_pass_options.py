"""Arguments and options of a command in one dataclass."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from imagepipe.cli.options import CloudOptions, VariableOptions, cloud_options, variable_options
from imagepipe.cli.pass_options import pass_options

ROOT = Path(__file__).resolve().parents[2] / "imagepipe"
MODULES = sorted(path for room in ("cli", "spec") for path in (ROOT / room).glob("*.py"))
MOST_PARAMETERS = 7


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


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_no_function_has_more_than_seven_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
            assert count <= MOST_PARAMETERS, f"{path.name}: {node.name} has {count} parameters"
