"""`imagepipe images`: deregister images, with their snapshots or bundles; the other commands are beside this module."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from imagepipe.cli.cloud import cloud_target, home_region, open_cloud
from imagepipe.cli.images_launch import launch
from imagepipe.cli.images_list import list_images
from imagepipe.cli.images_prune import prune
from imagepipe.cli.images_restore import restore
from imagepipe.cli.images_show import show
from imagepipe.cli.options import CloudOptions, target_options
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.clock import SystemClock
from imagepipe.cloud.ec2 import Ec2, Regions
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError, UsageError
from imagepipe.publish.retire import Retired, find, retire
from imagepipe.retention.bakes import baked_image
from imagepipe.retention.uses import uses_of


@click.group()
def images() -> None:
    """List, show, launch, retire and deregister images."""


for command in (list_images, show, launch, prune, restore):
    images.add_command(command)


@dataclass(frozen=True, slots=True)
class DeregisterOptions:
    """Arguments and options of `imagepipe images deregister`."""

    words: tuple[str, ...]
    deletes_data: bool
    region: str | None
    every_region: bool
    dry_run: bool
    is_confirmed: bool
    is_forced: bool
    cloud: CloudOptions
    output: Format


@images.command(
    short_help="Deregister images, with their snapshots or bundles.",
    epilog="""\b
Examples:
  imagepipe images deregister ami-0123456789abcdef0
  imagepipe images deregister web-server-20261125T110000Z --every-region --delete-data
  imagepipe images deregister 'web-server-2025*' --delete-data --dry-run
  imagepipe images deregister 'web-server-2025*' --delete-data --yes
  imagepipe images deregister web-server-20261125T110000Z --local --delete-data --dry-run
""",
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
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask before images of a pattern are deregistered.")
@click.option(
    "--force", "is_forced", is_flag=True, help="Deregister images that are in use, or whose uses are unknown."
)
@target_options
@log_format_option
@pass_options(DeregisterOptions)
def deregister(options: DeregisterOptions) -> int:
    """Deregister images of this account, given by id, by complete name or by a pattern, and print what was deleted.

    A pattern is a name with `*` or `?`. Its images are listed, and deregistered after a confirmation. An image that an
    instance, a launch template, an Auto Scaling group, a parameter, a recipe or another image uses is left, unless
    --force is given. Running instances of an image keep running.

    Without --delete-data, snapshots and bundles remain, and still cost money. Snapshots and bundles that another image
    uses are never deleted.
    """
    rows: list[dict[str, object]] = []
    with open_cloud(cloud_target(options.cloud), region=options.region, clock=SystemClock()) as regions:
        home = home_region(options.region, regions)
        every = options.every_region
        found = [each for word in options.words for each in _find_images(regions, word, home, every_region=every)]
        found = list({(ec2.region, str(image["ImageId"])): (ec2, image) for ec2, image in found}.values())
        users = {} if options.is_forced else _users(regions, found)
        if any(_is_pattern(word) for word in options.words) and not options.dry_run:
            _confirm(found, users, is_confirmed=options.is_confirmed)
        for ec2, image in found:
            row: dict[str, object] = {
                "image_id": image["ImageId"],
                "name": image.get("Name", ""),
                "region": ec2.region,
                "deregistered": not options.dry_run,
            }
            rows.append(row)
            if used_by := users.get((ec2.region, str(image["ImageId"]))):
                _print_refused(row, used_by)
                continue
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
    elif not every and any("error" not in row for row in rows):
        click.echo(f"only {home} was looked at: copies in other regions stay, without --every-region")
    return CloudError.exit_code if any("error" in row for row in rows) else 0


_Found = list[tuple[Ec2, Mapping[str, Any]]]
_Users = dict[tuple[str, str], list[str]]
"""Everything that uses an image, as text, by its region and id."""


def _is_pattern(word: str) -> bool:
    return "*" in word or "?" in word


def _users(regions: Regions, found: _Found) -> _Users:
    """Return what uses images. Raises CloudError if that cannot be found out."""
    own = [baked_image(image, ec2.region) for ec2, image in found]
    uses = uses_of(regions, own)
    for region, error in uses.failed.items():
        raise CloudError(
            f"nothing was deregistered, because the uses of images in {region} are not known: {error}",
            code=error.code,
            iam_action=error.iam_action,
            hint="allow the action, or pass --force to deregister without these checks",
        )
    users: _Users = {}
    ids = {image.id for image in own}
    for image in own:
        texts = [each.describe() for each in uses.of(image)]
        layers = regions[image.region].lifecycle.built_on([image.id])
        texts += [f"image {each['ImageId']}, which is built on it" for each in layers if each["ImageId"] not in ids]
        if texts:
            users[image.region, image.id] = texts
    return users


def _confirm(found: _Found, users: _Users, *, is_confirmed: bool) -> None:
    """List the images of a pattern and ask. Raises UsageError without a terminal, and Abort if the answer is no."""
    if is_confirmed:
        return
    free = [(ec2, image) for ec2, image in found if (ec2.region, str(image["ImageId"])) not in users]
    for ec2, image in free:
        click.echo(f"  {image['ImageId']} '{image.get('Name', '')}' in {ec2.region}", err=True)
    if not sys.stdin.isatty():
        raise UsageError(
            f"a pattern would deregister {len(free)} image{'' if len(free) == 1 else 's'}, and nobody can be asked",
            hint="look at them with --dry-run, then pass --yes",
        )
    click.confirm(
        f"deregister {'this image' if len(free) == 1 else f'these {len(free)} images'}?", abort=True, err=True
    )


def _print_refused(row: dict[str, object], used_by: list[str]) -> None:
    """Print that an image is in use, and note it in its row."""
    text = f"{row['image_id']} in {row['region']} is in use: {', '.join(used_by)}"
    hint = "it was left; --force deregisters it anyway"
    row.update({"deregistered": False, "error": text, "hint": hint, "used_by": used_by})
    click.echo(f"error: {text}", err=True)
    click.echo(f"  hint: {hint}", err=True)


def _find_images(regions: Regions, word: str, home: str, *, every_region: bool) -> _Found:
    """Return the images with this id, name or pattern, each with its region."""
    here = regions[home]
    if _is_pattern(word):
        searched = regions.enabled(home) if every_region else [home]
        pattern = {"Name": "name", "Values": [word]}
        found = [(regions[name], image) for name in searched for image in regions[name].lifecycle.own(pattern)]
    else:
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
            hint="an id belongs to one region: check --region. A name must be complete, or a pattern: 'web-*'",
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
