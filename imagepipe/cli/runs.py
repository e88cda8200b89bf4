"""`imagepipe runs`: list the runs of this machine or of shared state, each with its state and its resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import click

from imagepipe.cli.options import CloudOptions
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run_store import past_runs, started_of
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, check_state_access, state_access_options
from imagepipe.clock import Clock, SystemClock, parse_iso
from imagepipe.dataclass import dataclass
from imagepipe.engine.journal import Claim, JournalState
from imagepipe.errors import ImagepipeError
from imagepipe.report.text import short_duration

STATUSES = ("running", "succeeded", "failed", "cancelled", "launched", "dead", "unreadable")
HEADER = ("RUN", "STARTED (UTC)", "DURATION", "STATE", "SPECS", "IMAGES")


@dataclass(frozen=True, slots=True)
class RunsOptions:
    """Options of `imagepipe runs`."""

    count: int | None
    statuses: tuple[str, ...]
    specs: tuple[str, ...]
    output: Format
    state: StateOptions
    cloud: CloudOptions


@click.command(
    epilog="""\b
Examples:
  imagepipe runs -n 5
  imagepipe runs --status dead --status failed
  imagepipe runs --state s3://our-state/team
  imagepipe runs --spec 'web-*' --format json
  imagepipe show latest     print the output of the newest run
  imagepipe clean RUN       delete the resources of a dead run
"""
)
@click.option("-n", "count", type=click.IntRange(min=1), metavar="N", help="List only the newest N that match.")
@click.option(
    "--status", "statuses", type=click.Choice(STATUSES), multiple=True, help="Only with this status; repeatable."
)
@click.option("--spec", "specs", multiple=True, metavar="NAME", help="Only of this spec; * and ? match; repeatable.")
@state_access_options
@format_option()
@pass_options(RunsOptions)
def runs(options: RunsOptions) -> int:
    """List the runs of this machine, or of shared state, newest first, and the resources that each still holds.

    A run is dead if its process ended without cleaning up: `resume` continues it, `clean` deletes what it holds.
    It is launched if it is an instance of `imagepipe images launch` that still exists.
    """
    clock = SystemClock()
    check_state_access(options.state, options.cloud)
    with open_state(options.state, options.cloud, clock) as store:
        every = sorted(past_runs(store), key=lambda pair: started_of(store, *pair), reverse=True)
    rows = [pair for pair in every if _matches(pair[1], options)][: options.count]
    if options.output == "json":
        print_json([_row(run, past, clock) for run, past in rows])
        return 0
    if not rows:
        click.echo("no run matches" if every else "no runs yet")
        return 0
    _print(rows, clock)
    return 0


def state(past: JournalState) -> str:
    """Return the state of a run in one word."""
    if past.is_alive:
        return "running"
    if past.has_launched:
        return "launched"
    return past.outcome or "dead"


def run_row(past: JournalState, clock: Clock) -> dict[str, object]:
    """Describe a run for a result in JSON."""
    seconds = _seconds(past, clock)
    return {
        "run": past.run.id,
        "started": past.run.started,
        "ended": past.ended,
        "seconds": None if seconds is None else round(seconds, 3),
        "state": state(past),
        "specs": list(past.run.specs),
        "image_names": image_names(past),
        "images": [_image(image) for outputs in outputs_by_spec(past).values() for image in _images(outputs)],
        "held": [_held(claim) for claim in past.open_claims()],
    }


def image_names(past: JournalState) -> list[str]:
    """Return the names of a run's images; those that they will get, if they do not exist yet."""
    names: dict[str, None] = {}
    for outputs in outputs_by_spec(past).values():
        found = _images(outputs) or _parts(outputs.get("name"))
        names |= {str(each["name"]): None for each in found if "name" in each}
    return list(names)


def _matches(past: JournalState | ImagepipeError, options: RunsOptions) -> bool:
    if isinstance(past, ImagepipeError):
        return not options.specs and (not options.statuses or "unreadable" in options.statuses)
    is_in_state = not options.statuses or state(past) in options.statuses
    return is_in_state and (
        not options.specs or any(fnmatchcase(name, spec) for name in past.run.specs for spec in options.specs)
    )


def _print(rows: Sequence[tuple[str, JournalState | ImagepipeError]], clock: Clock) -> None:
    """Print a table, with the held resources and the errors between its lines."""
    table: list[tuple[str, ...]] = [HEADER]
    below: list[list[str]] = [[]]
    for run, past in rows:
        if isinstance(past, ImagepipeError):
            table.append((run, "", "", "unreadable", "", ""))
            below.append([str(past)])
            continue
        started = past.run.started[:19].replace("T", " ")
        seconds = _seconds(past, clock)
        duration = "" if seconds is None else short_duration(seconds)
        specs, images = ", ".join(past.run.specs), ", ".join(image_names(past))
        table.append((past.run.id, started, duration, state(past), specs, images))
        below.append([] if past.is_alive else [f"still held: {claim}" for claim in past.open_claims()])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells, lines in zip(table, below, strict=True):
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip())
        for line in lines:
            click.echo(f"          {line}")


def _seconds(past: JournalState, clock: Clock) -> float | None:
    """Return how long a run took, or has taken so far; None if its journal does not have valid times."""
    try:
        end = clock.now() if past.ended is None else parse_iso(past.ended)
        return max(0.0, (end - parse_iso(past.run.started)).total_seconds())
    except ValueError:
        return None


def images_by_spec(past: JournalState) -> dict[str, list[dict[str, Any]]]:
    """Return the images that a run kept, as the journal has them, by spec."""
    only = past.run.specs[0] if len(past.run.specs) == 1 else ""
    return {spec or only: _images(outputs) for spec, outputs in outputs_by_spec(past).items()}


IMAGE_STAGES = ("replaced", "published", "keep")
"""Stages whose output is a spec's images, the one with the final names first."""


def outputs_by_spec(past: JournalState) -> dict[str, dict[str, Any]]:
    """Return the outputs of each spec's stages, as the journal has them, by the stage's name without the spec.

    The only spec of a run has an empty key.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, done in past.outputs.items():
        spec, _, stage = name.rpartition("/")
        found.setdefault(spec, {})[stage] = done.value
    return found


def _images(outputs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the images that a spec's stages kept; none if they did not get that far."""
    return next((found for stage in IMAGE_STAGES if (found := _parts(outputs.get(stage)))), [])


def _parts(value: Any) -> list[dict[str, Any]]:
    """Return the values in an output that is a list, or a mapping by region."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [part for part in parts if isinstance(part, dict)]


def _row(run: str, past: JournalState | ImagepipeError, clock: Clock) -> dict[str, object]:
    if isinstance(past, ImagepipeError):
        return {"run": run, "state": "unreadable", "error": str(past)}
    return run_row(past, clock)


def _image(image: dict[str, Any]) -> dict[str, object]:
    return {"image_id": image.get("id"), "region": image.get("region"), "name": image.get("name")}


def _held(claim: Claim) -> dict[str, object]:
    return {"kind": claim.kind, "id": claim.id, "region": claim.region, "token": claim.token}
