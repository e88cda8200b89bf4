"""`imagepipe images list`: the images of specs in all regions, with their states and uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from imagepipe.cli.cloud import cloud_target, open_cloud
from imagepipe.cli.options import CloudOptions, role_option, target_options
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.past_inputs import PastInputs
from imagepipe.cli.state import open_state
from imagepipe.cli.state_options import StateOptions, state_option
from imagepipe.clock import SystemClock, iso
from imagepipe.cloud.session import FIRST_REGION
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError, UsageError
from imagepipe.retention.bakes import Bake
from imagepipe.retention.survey import Survey, survey
from imagepipe.retention.uses import Uses, describe_uses, uses_of
from imagepipe.spec.keys import SpecKey, parse_key


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Options of `imagepipe images list`."""

    specs: tuple[str, ...]
    in_regions: tuple[str, ...]
    only_unused: bool
    cloud: CloudOptions
    state: StateOptions
    output: Format


@dataclass(frozen=True, slots=True)
class ListedBake:
    """One line of the list."""

    bake: Bake
    states: tuple[str, ...]
    users: tuple[str, ...] | None
    """Everything that uses an image of the bake; None if that is not known."""

    @property
    def kind(self) -> str:
        return "instance-store" if self.bake.images[0].bundle else "ebs"

    @property
    def volume_gib(self) -> int | None:
        """Size of the image's volumes in GiB; None for a bundle, whose size only its manifest tells."""
        sizes = [
            each.get("Ebs", {}).get("VolumeSize")
            for each in self.bake.images[0].described.get("BlockDeviceMappings", ())
        ]
        known = [int(size) for size in sizes if size is not None]
        return sum(known) if known else None

    @property
    def last_launched(self) -> datetime | None:
        times = [image.last_launched for image in self.bake.images if image.last_launched]
        return max(times, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return the values for `--format json`. An unknown value is null."""
        bake = self.bake
        return {
            "spec": bake.spec,
            "variant": bake.variant or None,
            "name": bake.name,
            "kind": self.kind,
            "created": iso(bake.created),
            "volume_gib": self.volume_gib,
            "run": bake.run,
            "images": [
                {"image_id": image.id, "region": image.region, "state": state}
                for image, state in zip(bake.images, self.states, strict=True)
            ],
            "last_launched": iso(self.last_launched) if self.last_launched else None,
            "used_by": None if self.users is None else list(self.users),
        }


@click.command(
    "list",
    short_help="List the images that specs made, newest first.",
    epilog="""\b
Examples:
  imagepipe images list
  imagepipe images list --local
  imagepipe images list --spec web-server --region eu-west-1
  imagepipe images list --spec 'base[release=bookworm]' --format json
  imagepipe images list --unused
""",
)
@click.option("--spec", "specs", multiple=True, metavar="SPEC", help="List only images of this spec; repeatable.")
@click.option(
    "--region",
    "in_regions",
    multiple=True,
    metavar="REGION",
    help="List only images in this region; repeatable.  [default: all regions of the account]",
)
@click.option("--unused", "only_unused", is_flag=True, help="List only images that nothing in this account uses.")
@role_option()
@target_options
@state_option
@log_format_option
@pass_options(ListOptions)
def list_images(options: ListOptions) -> int:
    """List the images that specs made, newest first; the copies of one bake in all regions are one line.

    States are those of EC2, `deprecated`, and `unfinished` for an image whose run has not succeeded. EC2 reports
    launches a day late. Uses are those in this account: instances, launch templates, Auto Scaling groups, parameters,
    recipes, and images that are built on it.
    """
    keys = [_key(word) for word in options.specs]
    clock = SystemClock()
    first = options.in_regions[0] if options.in_regions else None
    target = cloud_target(options.cloud)
    with open_state(options.state, target, clock) as store, open_cloud(target, region=first, clock=clock) as regions:
        searched = options.in_regions or regions.enabled(regions.session.region or FIRST_REGION)
        seen = survey(regions, searched, PastInputs(store).source)
        bakes = [bake for bake in seen.bakes() if not keys or any(_matches(key, bake) for key in keys)]
        uses = uses_of(regions, (image for bake in bakes for image in bake.images))
    print_errors({**seen.failed, **uses.failed})
    rows = [listed_bake(bake, seen, uses, clock.now()) for bake in bakes]
    if options.only_unused:
        if unknown := next(iter(uses.failed.values()), None):
            raise CloudError(f"the unused images are not known: {unknown}", code=unknown.code, hint=unknown.hint)
        rows = [row for row in rows if row.users == ()]
    if options.output == "json":
        print_json({"images": [row.to_json() for row in rows]})
    else:
        _print(rows, clock.now())
    return CloudError.exit_code if seen.failed or uses.failed else 0


def print_errors(failed: Mapping[str, CloudError]) -> None:
    """Print the regions that did not answer, or not completely, with the reasons."""
    for region, error in failed.items():
        click.echo(f"error: {region}: {error}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)


def _key(word: str) -> SpecKey:
    if (key := parse_key(word)) is None:
        raise UsageError(f"--spec {word}: not the name of a spec", hint="such as web-server, or base[release=bookworm]")
    return key


def _matches(key: SpecKey, bake: Bake) -> bool:
    found = parse_key(bake.key)
    return key.covers(found) if found else key.name == bake.spec and not key.axes


def listed_bake(bake: Bake, seen: Survey, uses: Uses, now: datetime) -> ListedBake:
    """Return the line of a bake."""
    states = tuple(image.state_at(now) for image in bake.images)
    if any(region in uses.failed for region in bake.regions):
        return ListedBake(bake, states, None)
    return ListedBake(bake, states, tuple(describe_uses(bake, uses, seen.layers_of(bake))))


def _print(rows: Sequence[ListedBake], now: datetime) -> None:
    if not rows:
        click.echo("no images")
        return
    table: list[tuple[str, ...]] = [
        ("SPEC", "IMAGE", "NAME", "KIND", "AGE", "SIZE", "REGIONS", "STATE", "LAUNCHED", "USED BY")
    ]
    table += [_row(row, now) for row in rows]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    for line in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _row(row: ListedBake, now: datetime) -> tuple[str, ...]:
    bake = row.bake
    regions = bake.regions[0] if len(bake.regions) == 1 else f"{bake.regions[0]} +{len(bake.regions) - 1}"
    used = "unknown" if row.users is None else f"{row.users[0]}{_more(len(row.users))}" if row.users else "-"
    return (
        bake.key,
        bake.images[0].id,
        bake.name,
        row.kind,
        age(now - bake.created),
        "-" if row.volume_gib is None else f"{row.volume_gib} GiB",
        regions,
        ", ".join(dict.fromkeys(row.states)),
        f"{row.last_launched:%Y-%m-%d}" if row.last_launched else "-",
        used,
    )


def _more(count: int) -> str:
    return f" +{count - 1}" if count > 1 else ""


def age(time: timedelta) -> str:
    """Return an age in its largest unit: `12d`, `3h`, `5m`."""
    seconds = max(0, int(time.total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
