"""`imagepipe images`: deregister images, with their snapshots or bundles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from imagepipe.cli.cloud import cloud_target, open_cloud
from imagepipe.cli.images_prune import prune
from imagepipe.cli.options import CloudOptions, target_options
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.errors import CloudError, UsageError
from imagepipe.publish.retire import Retired, find, retire


@click.group()
def images() -> None:
    """List, show, launch, retire and deregister images."""


images.add_command(prune)


@dataclass(frozen=True, slots=True)
class DeregisterOptions:
    """Arguments and options of `imagepipe images deregister`."""

    words: tuple[str, ...]
    deletes_data: bool
    region: str | None
    every_region: bool
    dry_run: bool
    cloud: CloudOptions
    output: Format


@images.command(
    epilog="""\b
Examples:
  imagepipe images deregister ami-0123456789abcdef0
  imagepipe images deregister web-server-20261125T110000Z --every-region --delete-data
  imagepipe images deregister web-server-20261125T110000Z --local --delete-data --dry-run
"""
)
@click.argument("words", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--delete-data",
    "deletes_data",
    is_flag=True,
    help="Also delete the image's snapshots or bundle.",
)
@click.option("--region", metavar="REGION", help="Region of the image.  [default: the AWS CLI's]")
@click.option(
    "--every-region", is_flag=True, help="Also deregister the images with the same name in all other regions."
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@target_options
@log_format_option
@pass_options(DeregisterOptions)
def deregister(options: DeregisterOptions) -> int:
    """Deregister images of this account, given by id or by complete name, and print what was deleted.

    Without --delete-data, their snapshots and bundles remain, and still cost money. Snapshots and bundles that another
    image uses are never deleted. Running instances of an image keep running.
    """
    rows: list[dict[str, object]] = []
    with open_cloud(cloud_target(options.cloud), region=options.region, clock=SystemClock()) as regions:
        home = options.region or regions.session.region
        if not home:
            raise UsageError("no region is set", hint="pass --region, or set AWS_DEFAULT_REGION")
        every = options.every_region
        found = [each for word in options.words for each in _find_images(regions, word, home, every_region=every)]
        for ec2, image in found:
            row: dict[str, object] = {
                "image_id": image["ImageId"],
                "name": image.get("Name", ""),
                "region": ec2.region,
                "deregistered": not options.dry_run,
            }
            rows.append(row)
            if options.dry_run:
                _print_line(f"would deregister {row['image_id']} '{row['name']}' in {ec2.region}", options.output)
                continue
            try:
                row.update(_print_retired(retire(ec2, image, deletes_data=options.deletes_data), options.output))
            except CloudError as error:  # the other images do not depend on it
                row.update({"deregistered": False, "error": str(error), "hint": error.hint})
                click.echo(f"error: {error}", err=True)
                if error.hint:
                    click.echo(f"  hint: {error.hint}", err=True)
    if options.output == "json":
        print_json({"dry_run": options.dry_run, "images": rows})
    return CloudError.exit_code if any("error" in row for row in rows) else 0


def _find_images(regions: Regions, word: str, home: str, *, every_region: bool) -> list[tuple[Ec2, Mapping[str, Any]]]:
    """Return the images with this id or name, each with its region."""
    here = regions[home]
    at_home = find(here.images, word)
    found = [(here, image) for image in at_home]
    if every_region:
        name = str(at_home[0]["Name"]) if at_home else word
        others = [each for each in regions.enabled(home) if each != home and not name.startswith("ami-")]
        found += [(regions[other], image) for other in others for image in find(regions[other].images, name)]
    if not found:
        where = "any region" if every_region else home
        raise CloudError(
            f"this account has no image {word} in {where}",
            code="InvalidAMIID.NotFound",
            hint="an id belongs to one region: check --region. A name must be complete",
        )
    return found


def _print_retired(done: Retired, output: Format) -> dict[str, object]:
    """Print the deleted resources; return them for the result in JSON."""
    _print_line(f"{done.image} '{done.name}' in {done.region}: deregistered", output)
    if done.deleted:
        _print_line(f"  deleted {', '.join(done.deleted)}: {done.freed}", output)
    for what, why in done.left.items():
        _print_line(f"  left {what}: {why}", output)
    return {"deleted": list(done.deleted), "left": dict(done.left)}


def _print_line(line: str, output: Format) -> None:
    click.echo(line, err=output == "json")
