"""`imagepipe images restore`: enable a disabled image again, or restore a deregistered one from Recycle Bin."""

from __future__ import annotations

import click

from imagepipe.cli.cloud import cloud_target, home_region, open_cloud
from imagepipe.cli.options import CloudOptions, is_image_id, role_option, state_folder, target_options
from imagepipe.cli.output_format import Format, log_format_option, print_json
from imagepipe.cli.pass_options import pass_options
from imagepipe.clock import SystemClock
from imagepipe.cloud import tags
from imagepipe.cloud.ec2 import Ec2
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError, UsageError
from imagepipe.retention.bakes import baked_image
from imagepipe.retention.record import FILE_NAME, Entry, RetirementRecord


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """Arguments and options of `imagepipe images restore`."""

    image: str
    region: str | None
    cloud: CloudOptions
    output: Format


@click.command(
    short_help="Make a retired image available again.",
    epilog="""\b
Examples:
  imagepipe images restore ami-0123456789abcdef0
  imagepipe images restore ami-0123456789abcdef0 --region eu-west-1
  imagepipe images restore ami-0123456789abcdef0 --local --format json
""",
)
@click.argument("image", metavar="IMAGE")
@click.option("--region", metavar="REGION", help="Region of the image.  [default: the AWS CLI's]")
@role_option()
@target_options
@log_format_option
@pass_options(RestoreOptions)
def restore(options: RestoreOptions) -> int:
    """Make a retired image available again, given by its id.

    A disabled image is enabled, and its deprecation ends. A deregistered one is restored from Recycle Bin with its
    snapshots, if a rule of Recycle Bin has kept it and `images prune` on this computer has deregistered it. Launch
    permissions are not restored: EC2 removes them when an image is disabled.
    """
    clock = SystemClock()
    if not is_image_id(options.image):
        raise UsageError(f"{options.image} is not the id of an image", hint="such as ami-0123456789abcdef0")
    target = cloud_target(options.cloud)
    with open_cloud(target, region=options.region, clock=clock) as regions:
        home = home_region(options.region, regions)
        record = RetirementRecord(state_folder().parent / FILE_NAME, target.with_account(regions).identity(), clock)
        done = _restore(regions[home], options.image, record.deregistered(options.image))
    if options.output == "json":
        print_json({"image_id": options.image, "region": home, "done": done})
    else:
        for line in done:
            click.echo(line)
        click.echo("to keep it: enable its deregistration protection, or raise retention.newest of its spec")
    return 0


def _restore(ec2: Ec2, id: str, entry: Entry | None) -> list[str]:
    """Restore an image; return what was done, as text. Raises CloudError."""
    done = []
    if not ec2.lifecycle.own({"Name": "image-id", "Values": [id]}):
        try:
            snapshots = ec2.recycle_bin.restore(id, entry.snapshots if entry else ())
        except CloudError as error:
            hint = "it was not deregistered by `images prune` on this computer, so its snapshots are not known here"
            raise CloudError(str(error), code=error.code, hint=error.hint or (None if entry else hint)) from error
        done.append(f"restored {id} in {ec2.region} from Recycle Bin{_with(snapshots)}")
    [described] = ec2.lifecycle.own({"Name": "image-id", "Values": [id]})
    image = baked_image(described, ec2.region)
    if image.state == "disabled":
        ec2.lifecycle.enable(id)
        done.append(f"enabled {id}")
    if image.deprecated_at is not None:
        ec2.images.undeprecate(id)
        done.append(f"ended the deprecation of {id}")
    if image.disabled_at is not None:
        ec2.images.tag([id], {tags.DISABLED: ""})
    return done or [f"{id} in {ec2.region} is {image.state}: nothing to do"]


def _with(snapshots: list[str]) -> str:
    return f" with {', '.join(snapshots)}" if snapshots else ""
