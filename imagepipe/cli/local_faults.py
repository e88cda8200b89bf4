"""`imagepipe local faults`, and the fault files that it and `local serve --faults` read."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.dataclass import dataclass
from imagepipe.errors import LocalCloudError, Problem, SpecError, UsageError

if TYPE_CHECKING:
    from imagepipe.local.aws.faults.faults import Fault
    from imagepipe.spec.document import Document

KEYS = ("seed", "faults")
SHAPE = "a fault file is a mapping: faults: [{effect: refuse, action: RunInstances}, …], and optionally seed: 7"
HINT = "docs/how-to/faults.md has an example of each"


@dataclass(frozen=True, slots=True)
class FaultsFile:
    """The contents of a fault file."""

    faults: tuple[Fault, ...]
    seed: int
    """Seed of the random numbers; drawn if the file has none."""

    def describe(self) -> str:
        """Describe the faults as text, with the seed that reproduces them."""
        if not self.faults:
            return "no faults are set"
        lines = [f"active faults (seed: {self.seed}):", *(f"  {fault.words()}" for fault in self.faults)]
        return "\n".join(lines)


def read_faults(file: Path) -> FaultsFile:
    """Return the faults in a file. Raises SpecError with all its problems and their positions."""
    from imagepipe.local.aws.faults.catalogue import check, fault_of

    document = _document(file)
    rows = document.value["faults"]
    problems = list(document.problems)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            problems.append(document.problem(("faults", number), "a fault is a mapping: {effect: …}", hint=HINT))
            continue
        for wrong in check(row):
            path: tuple[str | int, ...] = ("faults", number, *wrong.path)
            problems.append(document.problem(path, wrong.message, key=wrong.is_key, hint=HINT))
    if problems:
        raise SpecError(problems)
    seed = document.value.get("seed")
    return FaultsFile(tuple(map(fault_of, rows)), secrets.randbelow(10**6) if seed is None else seed)


def _document(file: Path) -> Document:
    """Read a file in which `faults` is a list and `seed` a number. Raises SpecError."""
    from imagepipe.spec.document import parse
    from imagepipe.spec.explain import did_you_mean
    from imagepipe.spec.load import read_text

    documents = parse(read_text(file), str(file))
    if broken := [problem for each in documents for problem in each.problems]:
        raise SpecError(broken)
    if len(documents) != 1 or not isinstance(documents[0].value, dict):
        raise SpecError([Problem(str(file), 1, 1, SHAPE)])
    document = documents[0]
    problems = [
        document.problem((key,), f"unknown key {key!r}{did_you_mean(str(key), KEYS)}", key=True)
        for key in document.value
        if key not in KEYS
    ]
    if not isinstance(document.value.get("faults"), list):
        problems.append(document.problem(("faults",), SHAPE, hint=HINT))
    seed = document.value.get("seed")
    if seed is not None and type(seed) is not int:
        problems.append(document.problem(("seed",), f"seed must be a whole number, not {seed!r}"))
    if problems:
        raise SpecError(problems)
    return document


class FaultsCommand(click.Command):
    """A command whose help lists the effects: they are loaded only for it."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from imagepipe.local.aws.faults.catalogue import KINDS

        effects = "\n".join(f"  {name:<12} {kind.what}" for name, kind in KINDS.items())
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(f"\b\nEffects:\n{effects}")
        super().format_epilog(ctx, formatter)


@click.command(
    short_help="List, set or clear injected faults.",
    cls=FaultsCommand,
    epilog="""\b
Examples:
  imagepipe local faults                   list the active faults, and how often each was injected
  imagepipe local faults throttled.yaml    replace them with the faults in this file
  imagepipe local faults --clear
""",
)
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--clear", is_flag=True, help="Clear all faults.")
@format_option(description="Print the faults of the cloud in this format.")
@click.pass_obj
def faults(root: Path | None, file: Path | None, clear: bool, output: Format) -> None:
    """Replace the faults of the running cloud with those in FILE, or list its faults.

    The file is described in docs/how-to/faults.md.
    """
    from imagepipe.cli.local_store import open_store
    from imagepipe.local.client import admin, connect

    if file and clear:
        raise UsageError("pass either a file, which replaces the active faults, or --clear")
    wanted = read_faults(file) if file else None
    store = open_store(root)
    cloud = connect.running(store)
    if cloud is None:
        raise LocalCloudError(
            f"the local cloud of {store.root} is not running, and faults last only as long as its process",
            hint="imagepipe local serve --faults FILE starts it with them",
        )
    if clear:
        admin.clear_faults(cloud)
    elif wanted:
        admin.set_faults(cloud, wanted.faults, wanted.seed)
    if output == "json":
        print_json({"faults": admin.faults(cloud), "injected": admin.injected(cloud)})
    elif clear:
        click.echo("no faults are set")
    elif wanted:
        click.echo(wanted.describe())
    else:
        click.echo(_listed(admin.faults(cloud), admin.injected(cloud)))


def _listed(rows: Sequence[dict[str, Any]], injected: dict[str, int]) -> str:
    lines = [f"{row['words']}: injected {_often(row['hits'])}" for row in rows] or ["no faults are set"]
    if injected:
        lines.append("since the cloud was started:")
        lines += [f"  {name}: {_often(count)}" for name, count in injected.items()]
    return "\n".join(lines)


def _often(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
