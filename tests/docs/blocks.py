"""The code blocks of the documentation, and the commands in them.

A comment right before a block says what happens to it: `<!-- not run: REASON -->`, or `<!-- file: PATH -->` for a file
that the reader saves. Every other block of commands is run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from markdown_it import MarkdownIt

from imagepipe.cli.main import main
from imagepipe.cli.run_options import KEEP, KEPT_FOR, RunCommand

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/how-to").glob("*.md")),
    *sorted((ROOT / "docs/explanation").glob("*.md")),
]
SHELLS = ("sh", "bash", "console")
REMARK = re.compile(r"<!--\s*(not run|file):\s*(.*?)\s*-->", re.DOTALL)
PROGRAM = re.compile(r"(?<![\w/@.:-])(?<!-t )(?:\.venv/bin/)?imagepipe(?=\s|$)")
ENDS = set("()[];<>|&")
PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*|[$…].*|.*…")
"""Words that stand for a value: RUN, SPEC, $image."""


@dataclass(frozen=True, slots=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    language: str
    """The word after the fence, or none; `sh` for an indented block."""
    text: str
    not_run: str | None = None
    file: str | None = None

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"

    @property
    def is_commands(self) -> bool:
        return self.language in SHELLS

    @property
    def script(self) -> str:
        """The block's commands as a shell script, without the output that a console block shows."""
        if self.language != "console" and not self.text.startswith("$ "):
            return self.text
        lines: list[str] = []
        is_command = False
        for line in self.text.splitlines():
            if line.startswith("$ "):
                lines.append(line[2:])
            elif is_command:
                lines.append(line)
            is_command = (is_command or line.startswith("$ ")) and line.endswith("\\")
        return "".join(f"{line}\n" for line in lines)


def blocks_of(page: Path) -> list[Block]:
    """Return every code block of a page, in order, those of lists too."""
    found: list[Block] = []
    before: str = ""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type in ("code_block", "fence"):
            assert token.map is not None
            language = "sh" if token.type == "code_block" else token.info.split(" ")[0]
            remark = REMARK.fullmatch(before.strip())
            kind, value = (remark[1], remark[2]) if remark else ("", "")
            not_run, file = (value if kind == "not run" else None), (value if kind == "file" else None)
            found.append(Block(page, token.map[0] + 1, language, token.content, not_run, file))
        if token.nesting == 0 and token.type != "inline":
            before = token.content if token.type == "html_block" else ""
        elif token.type == "inline":
            before = ""
    return found


def remarks_of(page: Path) -> int:
    """Count the comments of a page that are meant for a block."""
    return len(re.findall(r"<!--\s*(?:not run|file)\b", page.read_text(encoding="utf-8")))


def invocations(script: str) -> Iterator[list[str]]:
    """Yield the arguments of each `imagepipe` of a script, without redirections and all that follows."""
    for line in re.sub(r"\\\n\s*", " ", script).splitlines():
        for found in PROGRAM.finditer(line.partition(" #")[0]):
            yield _words(line[found.end() :])


def named_inline(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of each `imagepipe …` in the prose of a page."""
    for token in MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8")):
        for child in token.children or ():
            if child.type == "code_inline" and child.content.startswith("imagepipe "):
                yield _words(child.content.removeprefix("imagepipe "))


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.wordchars += "${}:,@%^+!…"
    words: list[str] = []
    while (word := lexer.get_token()) and not set(word) <= ENDS:
        words.append(word)
    return words


def problem_of(words: list[str], *, is_whole: bool = True) -> str | None:
    """Parse a command line of imagepipe as click does, but run nothing; return what is wrong with it.

    A part of a command line, as in prose, may lack arguments.
    """
    command: click.Command = main
    context = click.Context(main, info_name="imagepipe")
    rest = list(words)
    try:
        while True:
            if isinstance(command, RunCommand):
                rest = [f"{KEEP}={KEPT_FOR}" if word == KEEP else word for word in rest]
            values, rest, _ = command.make_parser(context).parse_args(rest)
            _check_values(command, context, values, is_whole=is_whole)
            if not isinstance(command, click.Group):
                break
            if not rest:
                break
            if PLACEHOLDER.fullmatch(rest[0]):
                return None
            name, inner, rest = command.resolve_command(context, rest)
            assert inner is not None
            command = inner
            context = click.Context(command, info_name=name, parent=context)
        if is_whole and isinstance(command, click.Group) and not command.invoke_without_command:
            return "Missing command."
        if rest and not context.allow_extra_args and not isinstance(command, click.Group):
            return f"Got unexpected extra arguments ({' '.join(rest)})"
    except click.BadOptionUsage as error:
        return error.format_message() if is_whole else None
    except click.UsageError as error:
        return error.format_message()
    return None


def _check_values(command: click.Command, context: click.Context, values: dict[str, object], *, is_whole: bool) -> None:
    for parameter in command.get_params(context):
        value = values.get(parameter.name or "")
        if not isinstance(value, (str, list, tuple)) or not value:
            has_value = isinstance(value, (bool, int)) or parameter.nargs == -1 or not parameter.required
            if is_whole and not has_value and parameter.resolve_envvar_value(context) is None:
                raise click.MissingParameter(ctx=context, param=parameter)
            continue
        if isinstance(parameter.type, (click.Path, click.File)):
            continue
        for each in [value] if isinstance(value, str) else value:
            if isinstance(each, str) and not PLACEHOLDER.fullmatch(each):
                parameter.type.convert(each, parameter, context)
