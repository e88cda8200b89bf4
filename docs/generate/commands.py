"""Write docs/reference/commands.md from the commands' help: `python -m docs.generate.commands FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from imagepipe.cli.main import main

WIDTH = 100
HEAD = "# Commands\n\nMade from `--help` by `make docs`; do not edit.\n"


def reference() -> str:
    """Return the page: every command's help, in the order of the main help."""
    return HEAD + "".join(f"\n## {path}\n\n```\n{text}\n```\n" for path, text in helps("imagepipe", main, None, WIDTH))


def helps(path: str, command: click.Command, parent: click.Context | None, width: int) -> Iterator[tuple[str, str]]:
    """Yield the path of a command and of each command below it, with its help for lines of this width."""
    settings = {"terminal_width": width, "max_content_width": width, **command.context_settings}
    context = click.Context(command, info_name=path.split()[-1], parent=parent, **settings)
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (inner := command.get_command(context, name)) is not None and not inner.hidden:
                yield from helps(f"{path} {name}", inner, context, width)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference(), encoding="utf-8")
