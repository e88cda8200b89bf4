"""Write the files that `--help` prints: `python -m docs.generate.help FOLDER`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from imagepipe.cli.help_texts import FULL_WIDTH, file_name
from imagepipe.cli.main import main


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and content of the file of each command, as click prints its help on a wide terminal."""
    os.environ["COLUMNS"] = str(FULL_WIDTH)
    return _texts((), main, None)


def _texts(path: tuple[str, ...], command: click.Command, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    name = path[-1] if path else "imagepipe"
    context = click.Context(command, info_name=name, parent=parent, **command.context_settings)
    yield file_name(path), command.get_help(context) + "\n"
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            if (found := command.get_command(context, inner)) is not None and not found.hidden:
                yield from _texts((*path, inner), found, context)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    kept = dict(texts())
    for file in folder.iterdir():
        if file.name not in kept:
            file.unlink()
    for file_of_command, text in kept.items():
        (folder / file_of_command).write_text(text, encoding="utf-8")
