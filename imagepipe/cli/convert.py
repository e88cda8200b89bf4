"""`imagepipe convert`: turn a Packer template into specs, and list everything that has no counterpart.

Loads only yaml, pydantic and jinja2.
"""

from __future__ import annotations

from pathlib import Path

import click

from imagepipe.cli.output_format import format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.convert.conversion import Conversion
from imagepipe.convert.conversion import convert as convert_template
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.regular_files import exists

INCOMPLETE = 11
"""Exit code of a conversion that leaves something out (docs/reference/exit-codes.md)."""
NOTHING = 2


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """Arguments and options of `imagepipe convert`."""

    file: str
    folder: str
    var_files: tuple[str, ...]
    force: bool
    dry_run: bool
    output: str


@click.command(
    epilog="""\b
Examples:
  imagepipe convert web.pkr.hcl
  imagepipe convert packer/ --output specs
  imagepipe convert web.json --dry-run
  imagepipe convert web.pkr.hcl --var-file prod.pkrvars.hcl
  imagepipe convert web.pkr.hcl --force --format json
  imagepipe convert web.pkr.hcl && imagepipe validate
"""
)
@click.argument("file", metavar="FILE")
@click.option(
    "--output",
    "folder",
    default="specs",
    show_default=True,
    metavar="DIR",
    help="Write the specs into this folder.",
)
@click.option(
    "--var-file",
    "var_files",
    multiple=True,
    metavar="FILE",
    help="Use the values of a variable file of Packer, *.pkrvars.hcl or JSON, as defaults; repeatable.",
)
@click.option("--force", is_flag=True, help="Overwrite specs that exist.")
@click.option("--dry-run", is_flag=True, help="Print the specs and write nothing.")
@format_option()
@pass_options(ConvertOptions)
def convert(options: ConvertOptions) -> int:
    """Turn a Packer template into specs that pass `imagepipe validate`.

    FILE is a template in HCL2 or JSON, or a folder whose *.pkr.hcl files are one template. Each amazon-ebs or
    amazon-instance source of a build becomes a spec. Everything that has no counterpart is listed with its line and
    the way to get it. Exit code 0 if nothing is left out, 11 if something is, 2 if no spec could be made.
    """
    path = Path(options.file)
    if not exists(path):
        raise UsageError(
            f"reading {options.file}: the file does not exist", hint="name a Packer template, or its folder"
        )
    var_files = [Path(each) for each in options.var_files]
    conversion = convert_template(path, Path(options.folder), working=Path.cwd(), var_files=var_files)
    if not options.dry_run:
        _write(conversion, force=options.force)
    if options.output == "json":
        print_json(_as_json(conversion, with_text=options.dry_run))
    else:
        _print(conversion, is_dry_run=options.dry_run)
    if not conversion.specs:
        return NOTHING
    return INCOMPLETE if conversion.problems else 0


def _write(conversion: Conversion, *, force: bool) -> None:
    existing = [str(spec.file) for spec in conversion.specs if spec.file.exists() or spec.file.is_symlink()]
    if existing and not force:
        message = f"writing specs: {', '.join(existing)} already exist{'s' if len(existing) == 1 else ''}"
        raise UsageError(message, hint="use --force to overwrite, or --output for another folder")
    for spec in conversion.specs:
        spec.file.parent.mkdir(parents=True, exist_ok=True)
        spec.file.write_text(spec.text, encoding="utf-8")


def _print(conversion: Conversion, *, is_dry_run: bool) -> None:
    for spec in conversion.specs:
        if is_dry_run:
            separator = "---\n" if spec is not conversion.specs[0] else ""
            click.echo(f"{separator}{spec.text}", nl=False)
        else:
            click.echo(f"{spec.file}: written from {spec.source}")
    for problem in conversion.problems:
        click.echo(problem.text(), err=is_dry_run)
    click.echo(_summary(conversion), err=is_dry_run)


def _summary(conversion: Conversion) -> str:
    specs, left = len(conversion.specs), len(conversion.problems)
    count = f"{specs} spec{'' if specs == 1 else 's'}"
    if not left:
        return f"{count}, complete"
    return f"{count}, {left} part{'' if left == 1 else 's'} of the template left out"


def _as_json(conversion: Conversion, *, with_text: bool) -> dict[str, object]:
    specs = [
        {"name": spec.name, "file": str(spec.file), "source": spec.source, **({"text": spec.text} if with_text else {})}
        for spec in conversion.specs
    ]
    problems = [
        {"file": each.file, "line": each.line, "what": each.what, "instead": each.instead}
        for each in conversion.problems
    ]
    complete = bool(specs) and not problems
    return {"format_version": 1, "complete": complete, "specs": specs, "problems": problems}
