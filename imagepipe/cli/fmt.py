"""`imagepipe fmt`: lay out specs and provisioners; comments stay."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from imagepipe.cli.pass_options import pass_options
from imagepipe.dataclass import dataclass
from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.extras import command_for_extra
from imagepipe.files import write_atomically
from imagepipe.regular_files import exists, read_text
from imagepipe.spec.find import SUFFIXES


@dataclass(frozen=True, slots=True)
class FmtOptions:
    """Arguments and options of `imagepipe fmt`."""

    paths: tuple[str, ...]
    is_check: bool
    is_diff: bool


@click.command(
    epilog="""\b
Examples:
  imagepipe fmt
  imagepipe fmt specs/web-server.yaml --diff
  imagepipe fmt --check specs provisioners
  imagepipe fmt - <web-server.yaml
"""
)
@click.argument("paths", nargs=-1, metavar="[FILE|FOLDER|-]...")
@click.option("--check", "is_check", is_flag=True, help="Change nothing; exit code 1 if a file would be changed.")
@click.option("--diff", "is_diff", is_flag=True, help="Change nothing; print the differences.")
@pass_options(FmtOptions)
def fmt(options: FmtOptions) -> int:
    """Lay out YAML files, by default those of specs/ and provisioners/; `-` is standard input, printed formatted.

    Indentation, spaces and line ends change. Comments, quotes, the order of keys and all values stay as they are.
    """
    formatted = _formatter()
    if options.paths == ("-",):
        click.echo(formatted(sys.stdin.read(), "standard input"), nl=False)
        return 0
    changed = 0
    for file in _files(options.paths):
        try:
            text = read_text(file)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"reading {file}: {getattr(error, 'strerror', None) or error}") from error
        made = formatted(text, str(file))
        if made == text:
            continue
        changed += 1
        if options.is_diff:
            click.echo("".join(_difference(file, text, made)), nl=False)
        elif options.is_check:
            click.echo(f"{file} is not formatted")
        else:
            _write(file, made)
            click.echo(f"{file} was formatted")
    if changed and options.is_check and not options.is_diff:
        click.echo("format them: imagepipe fmt", err=True)
    return 1 if changed and options.is_check else 0


def _formatter() -> Callable[[str, str], str]:
    """Return the function that lays a file out. Raises UsageError if its library is not installed."""
    try:
        from imagepipe.spec.formatting import formatted
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("ruamel"):
            raise
        raise UsageError("`imagepipe fmt` needs ruamel.yaml", hint=command_for_extra("fmt")) from error
    return formatted


def _files(words: Sequence[str]) -> list[Path]:
    """Return the files to format, each once. Raises UsageError for a word that is no file or folder."""
    folders = [name for name in ("specs", "provisioners", "imagepipe.yaml") if Path(name).exists()]
    if not words and not folders:
        raise UsageError("there is no specs/ folder here", hint="name the files to format, or change to your project")
    found: dict[Path, None] = {}
    for word in words or folders:
        path = Path(word)
        if not exists(path):
            raise UsageError(f"{word} does not exist", hint="name a file or a folder; `-` is standard input")
        files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
        found |= dict.fromkeys(file for file in files if not path.is_dir() or file.is_file())
    return list(found)


def _difference(file: Path, before: str, after: str) -> Iterator[str]:
    return difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(file), f"{file} (formatted)"
    )


def _write(file: Path, text: str) -> None:
    """Replace a file's content; a link stays a link, and the mode stays as it is."""
    target = file.resolve()
    try:
        mode = target.stat().st_mode & 0o7777
        write_atomically(target, text)
        target.chmod(mode)
    except OSError as error:
        raise ImagepipeError(f"writing {file}: {error.strerror}") from error
