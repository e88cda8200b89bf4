"""`imagepipe local`: run, stop and inspect the local cloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.cli.local_accounts import account, accounts
from imagepipe.cli.local_faults import faults
from imagepipe.cli.local_images import images
from imagepipe.cli.local_instances import console, ssh
from imagepipe.cli.local_run import reset, run
from imagepipe.cli.local_serve import serve
from imagepipe.cli.local_store import open_store, terminate_everything
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.errors import LocalCloudError

if TYPE_CHECKING:
    from imagepipe.local.machines.requirements import Finding


@click.group()
@click.option(
    "--store",
    "root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of the local cloud's data. [default: $IMAGEPIPE_LOCAL_STORE or ~/.local/share/imagepipe/local]",
)
@click.pass_context
def local(context: click.Context, root: Path | None) -> None:
    """Manage the cloud on this computer: EC2 and S3 on 127.0.0.1, with instances that boot."""
    context.obj = root


local.add_command(accounts)
local.add_command(account)
local.add_command(faults)
local.add_command(serve)
local.add_command(run)
local.add_command(ssh)
local.add_command(console)
local.add_command(reset)


@local.command(short_help="Stop the cloud.")
@click.option(
    "--force", is_flag=True, help="Stop it even if it is in use; terminates the instances of every region first."
)
@click.pass_obj
def stop(root: Path | None, force: bool) -> None:
    """Stop the cloud; refused while a build uses it or instances exist. Its data stays in the store."""
    from imagepipe.local.client import connect
    from imagepipe.local.disks.base_image import repair

    store = open_store(root)
    ended = connect.stop(store, terminate=terminate_everything if force else None)
    repair(store, lambda line: click.echo(line, err=True))
    click.echo("the local cloud was stopped" if ended else "the local cloud is not running")


@local.command(short_help="Print the cloud's state, instances and images.")
@format_option()
@click.pass_obj
def status(root: Path | None, output: Format) -> None:
    """Print whether the cloud runs, its address, and its instances and images."""
    from imagepipe.local.client import connect
    from imagepipe.local.disks.files import Disks

    store = open_store(root)
    found = connect.status(store)
    if output == "json":
        process = None
        if found is not None:
            process = {
                "pid": found.pid,
                "endpoint": found.endpoint_url,
                "ec2_certificate": str(store.ec2_certificate),
                "driver": found.driver,
                "instances": found.instances,
            }
        used = Disks(store.disks).used_bytes() if found is None else found.used_bytes
        print_json({"store": str(store.root), "process": process, "disks_bytes": used})
        return
    click.echo(f"store      {store.root}")
    if found is None:
        click.echo("process    none")
        click.echo(f"disks      {_size(Disks(store.disks).used_bytes())}")
        return
    click.echo(f"process    {found.pid}")
    click.echo(f"endpoint   {found.endpoint_url}")
    click.echo(f"bundles    {store.ec2_certificate}")
    click.echo(f"driver     {found.driver}")
    click.echo(f"instances  {found.instances}")
    click.echo(f"disks      {_size(found.used_bytes)}")


local.add_command(images)


@local.command(short_help="Build the base image, if the store lacks it.")
@click.pass_obj
def base(root: Path | None) -> None:
    """Build the base image if the store lacks it, and print its file.

    The first start of the cloud does this by itself. This command starts nothing, so it suits the build of a container.
    """
    from imagepipe.local.disks.base_image import ensure_base

    click.echo(ensure_base(open_store(root), lambda line: click.echo(line, err=True)).path)


@local.command(
    short_help="Check that the cloud can run on this computer.",
    epilog="""\b
Examples:
  imagepipe local doctor
  imagepipe local doctor --format json
""",
)
@format_option()
@click.pass_obj
def doctor(root: Path | None, output: Format) -> None:
    """Check that the local cloud can run on this computer, as this user.

    Prints the drivers that you can have, and the command that installs what is missing.

    Exit code 9 if it cannot run.
    """
    from imagepipe.local.disks.base_image import repair
    from imagepipe.local.machines.requirements import Verdict, examine, install_command

    store = open_store(root)
    repair(store, lambda line: click.echo(line, err=True))
    findings = examine(store)
    missing = [finding.what for finding in findings if finding.verdict is Verdict.MISSING]
    command = install_command(findings)
    if output == "json":
        print_json(
            {
                "can_run": not missing,
                "findings": [
                    {"what": each.what, "verdict": each.verdict, "detail": each.detail, "package": each.package}
                    for each in findings
                ],
                "install": command,
            }
        )
    else:
        _print_findings(findings, command)
    if missing:
        raise LocalCloudError(f"the local cloud cannot run here: {', '.join(missing)} missing")
    if output == "text":
        click.echo("\nthe local cloud can run here")


def _print_findings(findings: Sequence[Finding], command: str | None) -> None:
    for finding in findings:
        click.echo(f"{finding.verdict:<8} {finding.what}: {finding.detail}")
    if command:
        click.echo(f"\ninstall what is missing:\n  {command}")


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
