"""Write the man page imagepipe.1 from the commands' help: `python -m docs.generate.man FILE`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from imagepipe import __version__
from imagepipe.cli.main import COMMANDS, main

HEAD = f"""\
.\\" Made from --help by `make docs`; do not edit.
.TH IMAGEPIPE 1 "" "imagepipe {__version__}" "User Commands"
.SH NAME
imagepipe \\- bake Amazon Machine Images from YAML, on AWS or on this computer
.SH SYNOPSIS
.B imagepipe
.I COMMAND
.RI [ OPTION ]...
.RI [ ARGUMENT ]...
"""
FILES = """\
.SH FILES
.TP
.I specs/*.yaml
Specs.
.TP
.I imagepipe.yaml
Defaults of all specs of a project.
.TP
.I ~/.local/state/imagepipe/runs
Journals and events of runs; see $XDG_STATE_HOME.
.TP
.I ~/.local/share/imagepipe/local
The local cloud; see $IMAGEPIPE_LOCAL_STORE.
"""


def page() -> str:
    """Return the page in the man macros of groff (groff_man(7))."""
    context = click.Context(main, info_name="imagepipe")
    parts = [HEAD, ".SH DESCRIPTION\n", _text(main.help or ""), ".SH COMMANDS\n"]
    for name, (_, line) in COMMANDS.items():
        parts += [f".TP\n.B imagepipe {_escaped(name)}\n", _text(line)]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        parts += _section(name, command, context)
    return "".join([*parts, _exit_codes(), FILES])


def _section(path: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    context = click.Context(command, info_name=path.split()[-1], parent=parent)
    yield f".SH {_escaped(path.upper())}\n"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f".B imagepipe {_escaped(path)}\n{_escaped(usage)}\n.PP\n"
    yield _text(command.help or "")
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            yield f".TP\n.B {_escaped(record[0])}\n{_text(record[1])}"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (inner := command.get_command(context, name)) is not None and not inner.hidden:
                yield from _section(f"{path} {name}", inner, context)


def _exit_codes() -> str:
    """Return the table of docs/reference/exit-codes.md."""
    text = (Path(__file__).parents[1] / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", text, re.MULTILINE)
    without_links = [(code, re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", meaning)) for code, meaning in rows]
    return ".SH EXIT STATUS\n" + "".join(f".TP\n.B {code}\n{_text(meaning)}" for code, meaning in without_links)


def _text(text: str) -> str:
    """Return paragraphs; one that click leaves as it is (`\\b`) stays so."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.lstrip().startswith("\b"):
            lines = [_escaped(line) for line in paragraph.split("\n")[1:]]
            found.append(".nf\n" + "\n".join(lines) + "\n.fi\n")
        else:
            found.append(_escaped(" ".join(paragraph.replace("`", "").split())) + "\n")
    return ".PP\n".join(found)


def _escaped(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
