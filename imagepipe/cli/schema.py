"""`imagepipe schema`: print the JSON Schema of specs, for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import click

from imagepipe.errors import UsageError
from imagepipe.files import EVERYONE, write_atomically
from imagepipe.spec.json_schema import SchemaOf, json_schema
from imagepipe.step_kinds import installed_kinds


@click.command(
    epilog="""\b
Examples:
  imagepipe schema --output .imagepipe/spec.schema.json
  imagepipe schema project | less
\b
An editor with yaml-language-server checks and completes a spec whose first line names the schema:
  # yaml-language-server: $schema=.imagepipe/spec.schema.json
"""
)
@click.argument("of", type=click.Choice(get_args(SchemaOf)), default="spec", metavar="[spec|provisioner|project]")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write the schema into this file."
)
def schema(of: SchemaOf, output: Path | None) -> None:
    """Print the JSON Schema (draft 7) of specs, provisioners or projects.

    Editors complete and check with it while you type. `imagepipe validate` knows more rules.
    """
    text = json.dumps(json_schema(of, installed_kinds().values()), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, text, mode=EVERYONE)
    except OSError as error:
        raise UsageError(f"writing the schema to {output}: {error.strerror}") from error
