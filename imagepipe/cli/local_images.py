"""`imagepipe local images`: list the local cloud's images, and import disks as images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagepipe.cli.local_store import open_store, session_of
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.dataclass import dataclass
from imagepipe.errors import LocalCloudError, UsageError

if TYPE_CHECKING:
    from imagepipe.local.client.connect import LocalCloud


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image of the local cloud."""

    region: str
    image_id: str
    state: str
    created: str
    name: str
    is_base: bool
    """True if every region has this image, under a different id."""

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the image's table row."""
        suffix = " (in every region, under an id of its own)" if self.is_base else ""
        return (self.region, self.image_id, self.state, self.created, f"{self.name}{suffix}")


@click.group(invoke_without_command=True)
@format_option(description="Print the list in this format.")
@click.pass_context
def images(context: click.Context, output: Format) -> None:
    """List the images of all regions. Base images, which are in every region, are listed once."""
    if context.invoked_subcommand is None:
        show_images(context.obj, output)


@images.command(name="import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--name", help="Name of the image.  [default: the file's name]")
@click.option("--region", default="us-east-1", show_default=True, help="Region of the image.")
@click.pass_obj
def import_(root: Path | None, file: Path, name: str | None, region: str) -> None:
    """Import a cloud image into the local cloud: Debian's, Ubuntu's or Amazon's (qcow2, KVM), or a raw disk.

    \b
    imagepipe local images import debian-12-genericcloud-amd64.qcow2
    imagepipe local images import noble-server-cloudimg-amd64.img --name ubuntu-24.04

    The disk must be for x86_64 and boot with a BIOS, or for arm64 and boot with UEFI. Its instances run in QEMU, and
    cloud-init installs their keys. An arm64 machine is emulated on an x86_64 computer, which is slow: give SSH minutes.
    In a spec:

    \b
    source: {ami: {name: ubuntu-24.04, owners: [self]}}
    launch: {ssh: {user: ubuntu}}
    """
    from imagepipe.local.aws.ec2.images import from_disk
    from imagepipe.local.client import admin, connect
    from imagepipe.local.disks import import_image
    from imagepipe.local.machines.qemu import boards, kvm
    from imagepipe.spec.regions import REGIONS

    def progress(line: str) -> None:
        click.echo(line, err=True)

    name = name or file.name.partition(".qcow2")[0].removesuffix(".img").removesuffix(".raw")
    import_image.check_name(name)
    if region not in REGIONS:
        meant = get_close_matches(region, REGIONS, n=1)
        raise UsageError(
            f"--region {region}: AWS has no such region", hint=f"did you mean {meant[0]}?" if meant else None
        )
    store = open_store(root)
    disk = import_image.read_image(file, store.disks / from_disk.FOLDER, progress)
    try:
        _check_processor(disk.architecture, file)
        with connect.connect(store, progress=progress) as cloud:
            image = admin.add_image(cloud, disk, name=name, description=f"imported from {file.name}", region=region)
    finally:
        disk.path.unlink(missing_ok=True)
    progress(f"{name}: {disk.size_gib} GiB in {region}; boots {disk.boots}")
    why_not = kvm.why_not()
    if disk.architecture != boards.OWN:
        why_not = f"it is for {disk.architecture}, and this computer is {boards.OWN}"
    if why_not:
        progress(f"QEMU emulates its processor in software, which is slow: {why_not}")
    click.echo(image)


def _check_processor(architecture: str, file: Path) -> None:
    """Raise LocalCloudError if this computer lacks the programs that run machines of an architecture."""
    from imagepipe.local.machines.driver import ARM
    from imagepipe.local.machines.qemu import boards

    if architecture == ARM and (lacks := boards.arm_problems()):
        packages = " ".join(sorted(boards.ARM_PACKAGES.values()))
        raise LocalCloudError(
            f"importing {file}: it is for arm64: {'; '.join(lacks)}",
            hint=f"apt-get install --yes --no-install-recommends {packages}",
        )


def show_images(root: Path | None, output: Format) -> None:
    """Print the images of all regions. Base images, which are in every region, are printed once."""
    from imagepipe.local.client import connect

    store = open_store(root)
    with connect.connect(store, progress=lambda line: click.echo(line, err=True)) as cloud:
        found = list(_images(cloud))
    if output == "json":
        print_json([asdict(image) for image in found])
        return
    rows = [("REGION", "IMAGE", "STATE", "CREATED", "NAME"), *(image.cells() for image in found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _clients(cloud: LocalCloud) -> Iterator[tuple[str, Any]]:
    """Yield an EC2 client for every region."""
    session = session_of(cloud, cloud)
    regions = session.client("ec2", cloud.region).describe_regions()["Regions"]
    for region in sorted(each["RegionName"] for each in regions):
        yield region, session.client("ec2", region)


def _images(cloud: LocalCloud) -> Iterator[ListedImage]:
    from imagepipe.cloud.errors import translating
    from imagepipe.local.client import admin

    ours = {account.id for account in admin.accounts(cloud)}
    with translating("listing the local cloud's images"):
        for region, client in _clients(cloud):
            for image in client.describe_images()["Images"]:
                is_base = image["OwnerId"] not in ours
                if not is_base or region == cloud.region:
                    yield ListedImage(
                        region, image["ImageId"], image["State"], image["CreationDate"], image["Name"], is_base
                    )
