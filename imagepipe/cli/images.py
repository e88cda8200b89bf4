"""`imagepipe images`: what becomes of images that were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from imagepipe.cli.cloud import chosen_cloud, opened
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.errors import CloudError, UsageError
from imagepipe.publish.retire import Retired, find, retire


@click.group()
def images() -> None:
    """Deregister images, with their snapshots or bundles."""


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
    help="Also delete the image's snapshots or bundle, which cost money until then.",
)
@click.option("--region", help="Region of the image.  [default: the AWS CLI's]")
@click.option(
    "--every-region", is_flag=True, help="Also deregister copies of the same name, in all regions of the account."
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--local", "is_local", is_flag=True, help="Use the local cloud.")
@click.option("--profile", help="Use this AWS profile.")
@click.option("--endpoint-url", metavar="URL", help="Use this endpoint instead of AWS.")
def deregister(
    words: Sequence[str],
    deletes_data: bool,
    region: str | None,
    every_region: bool,
    dry_run: bool,
    is_local: bool,
    profile: str | None,
    endpoint_url: str | None,
) -> int:
    """Deregister images of this account, by id or by name, and print what was deleted.

    Keeps snapshots and bundles that another image uses. Of a bundle, deletes the parts in its manifest and then the
    manifest. Running instances of the image keep running.
    """
    chosen = chosen_cloud(is_local=is_local, profile=profile, endpoint_url=endpoint_url)
    with opened(chosen, region=region, clock=SystemClock()) as regions:
        home = region or regions.session.region
        if not home:
            raise UsageError("there is no region", hint="give --region, or set AWS_DEFAULT_REGION")
        found = [each for word in words for each in _found(regions, word, home, every_region=every_region)]
        failed = False
        for ec2, image in found:
            if dry_run:
                click.echo(f"would deregister {image['ImageId']} '{image.get('Name', '')}' in {ec2.region}")
                continue
            try:
                _say(retire(ec2, image, deletes_data=deletes_data))
            except CloudError as error:  # the others are independent of it
                click.echo(f"error: {error}", err=True)
                if error.hint:
                    click.echo(f"  hint: {error.hint}", err=True)
                failed = True
    return CloudError.exit_code if failed else 0


def _found(regions: Regions, word: str, home: str, *, every_region: bool) -> list[tuple[Ec2, Mapping[str, Any]]]:
    """The images that a word means, each with its region; all words are looked up before anything is done."""
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
            hint="an id is of one region: is --region right? A name must be whole",
        )
    return found


def _say(done: Retired) -> None:
    click.echo(f"{done.image} '{done.name}' in {done.region}: deregistered")
    if done.deleted:
        click.echo(f"  deleted {', '.join(done.deleted)}: {done.freed}")
    for what, why in done.left.items():
        click.echo(f"  left {what}: {why}")
