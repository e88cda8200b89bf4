"""`imagepipe local`: run, stop and inspect the local cloud."""

from __future__ import annotations

import ipaddress
import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.cli.local_accounts import account, accounts
from imagepipe.cli.local_faults import FaultsFile, faults, read_faults
from imagepipe.cli.local_images import images
from imagepipe.cli.local_store import open_store, session_of
from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.errors import LocalCloudError, UsageError
from imagepipe.values import PORT_OFFSET, HostPorts

if TYPE_CHECKING:
    from imagepipe.local.client.connect import LocalCloud
    from imagepipe.local.daemon.main import ExternalAddress
    from imagepipe.local.daemon.rendezvous import Serving
    from imagepipe.local.machines.requirements import Finding
    from imagepipe.local.store import Store


TOKEN_VARIABLE = "IMAGEPIPE_LOCAL_TOKEN"  # noqa: S105 the variable's name
TOKEN_LETTERS = 16


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


@local.command(
    epilog=f"""\b
Examples:
  imagepipe local serve
  imagepipe local serve --port 4566 --faults throttled.yaml
  {TOKEN_VARIABLE}=$(openssl rand -hex 16) imagepipe local serve --address 192.0.2.7
"""
)
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port of 127.0.0.1.  [default: a free one]")
@click.option(
    "--address",
    metavar="ADDRESS",
    help=f"Also listen on this address, for other machines. Needs a token in ${TOKEN_VARIABLE}, which they must send.",
)
@click.option("--env", "env_only", is_flag=True, help="Print only export lines for a shell.")
@click.option(
    "--faults",
    "faults_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Inject the faults in this file (docs/how-to/faults.md).",
)
@click.pass_obj
def serve(root: Path | None, port: int | None, address: str | None, env_only: bool, faults_file: Path | None) -> None:
    """Run the local cloud in the foreground, for the AWS CLI, Packer and other tools."""
    from imagepipe.local.client import connect
    from imagepipe.local.daemon import main as server

    beyond = _external_address(address)
    wanted = read_faults(faults_file) if faults_file else None
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # moto would use them, even a profile that does not exist
    store = open_store(root)
    stop = threading.Event()
    if found := connect.find(store):
        connect.check_driver(store, found)
        if beyond:
            raise LocalCloudError(
                f"serving {store.root} at {beyond.address}: its cloud already runs, on loopback (process {found.pid})",
                hint="stop it with `imagepipe local stop`",
            )
        server.set_on_signals(stop)
        _set_faults(store, wanted)
        _keep_alive(store, found, port, env_only, stop)
        return
    server.prepare(store, lambda line: click.echo(line, err=True))
    server.set_on_signals(stop)  # only now, so that Ctrl-C interrupts the build of the base image
    build = partial(server.build, faults=wanted.faults, seed=wanted.seed) if wanted else server.build

    def ready(it: Serving) -> None:
        _print_exports(store, it, env_only, beyond)
        _print_faults(wanted)

    server.serve(store, port=port, ready=ready, stop=stop, build=build, idle_seconds=None, external=beyond)


def _external_address(address: str | None) -> ExternalAddress | None:
    """Return the address of --address. Raises UsageError if it would leave the cloud open to other machines."""
    from imagepipe.local.daemon.main import ExternalAddress

    if address is None:
        return None
    try:
        is_loopback = ipaddress.ip_address(address).is_loopback
    except ValueError as error:
        raise UsageError(f"--address {address} is not an IP address") from error
    if is_loopback:
        raise UsageError(f"--address {address}: loopback is always served", hint="leave out --address")
    token = os.environ.get(TOKEN_VARIABLE, "")
    if len(token) < TOKEN_LETTERS:
        lacks = f"has fewer than {TOKEN_LETTERS} characters" if token else "is not set"
        raise UsageError(
            f"--address {address}: the cloud would be open to other machines, because {TOKEN_VARIABLE} {lacks}",
            hint=f"set {TOKEN_VARIABLE}=$(openssl rand -hex 16) here, and the same value as AWS_SESSION_TOKEN there",
        )
    return ExternalAddress(address, token)


def _set_faults(store: Store, wanted: FaultsFile | None) -> None:
    """Set faults on a cloud that is already running."""
    from imagepipe.local.client import admin, connect

    cloud = connect.running(store)
    if wanted and cloud:
        admin.set_faults(cloud, wanted.faults, wanted.seed)
        _print_faults(wanted)


def _print_faults(wanted: FaultsFile | None) -> None:
    """Print the faults on standard error, because standard output may be for a shell."""
    if wanted:
        click.echo(wanted.describe(), err=True)


@local.command()
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


@local.command()
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


@local.command()
@click.pass_obj
def base(root: Path | None) -> None:
    """Build the base image if the store lacks it, and print its file.

    The first start of the cloud does this by itself. This command starts nothing, so it suits the build of a container.
    """
    from imagepipe.local.disks.base_image import ensure_base

    click.echo(ensure_base(open_store(root), lambda line: click.echo(line, err=True)).path)


@local.command(
    epilog="""\b
Examples:
  imagepipe local doctor
  imagepipe local doctor --format json
"""
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


def _keep_alive(store: Store, found: Serving, port: int | None, env_only: bool, stop: threading.Event) -> None:
    """Keep a running cloud alive while this process runs."""
    import fcntl

    from imagepipe.local.daemon import rendezvous

    if port not in (None, found.port):
        raise LocalCloudError(
            f"serving {store.root} on port {port}: its cloud already runs on port {found.port} (process {found.pid})",
            hint="leave out --port, or stop that cloud with `imagepipe local stop`",
        )
    with rendezvous.held(store.clients, fcntl.LOCK_SH):
        _print_exports(store, found, env_only)
        while not stop.wait(1.0):
            if not found.is_alive():
                raise LocalCloudError(
                    f"the local cloud's process {found.pid} has ended", hint=f"its log is {store.log}"
                )


def _print_exports(store: Store, serving: Serving, env_only: bool, beyond: ExternalAddress | None = None) -> None:
    from imagepipe.local.client.connect import REGION

    keys = store.credentials()
    exports = [
        f"export AWS_ENDPOINT_URL={serving.endpoint_url}",
        f"export AWS_ACCESS_KEY_ID={keys.access_key_id}",
        f"export AWS_SECRET_ACCESS_KEY={keys.secret_access_key}",
        f"export AWS_DEFAULT_REGION={REGION}",
    ]
    if not env_only:
        click.echo(f"The local cloud of {store.root} is at {serving.endpoint_url}. In another shell:\n")
        exports = [f"  {line}" for line in exports]
    click.echo("\n".join(exports))
    if not env_only:
        if beyond:
            host = f"[{beyond.address}]" if ":" in beyond.address else beyond.address
            click.echo(
                f"\nFrom other machines: AWS_ENDPOINT_URL=http://{host}:{serving.port}, the same keys, and"
                f"\nAWS_SESSION_TOKEN=${TOKEN_VARIABLE}. Traffic is not encrypted; instances stay on loopback."
            )
        click.echo("\nInstances answer on private addresses, 127.42.x.y. Ctrl-C stops the cloud; its data is kept.")
        if first := serving.first_real_port:
            ssh = HostPorts(first).of(22)
            click.echo(f"Without root, their ports below {first} are open {PORT_OFFSET} higher. SSH is at port {ssh}.")
    sys.stdout.flush()


def terminate_everything(cloud: LocalCloud) -> None:
    """Terminate the instances of all accounts, in every region. Raises CloudError."""
    from imagepipe.cloud.errors import translating
    from imagepipe.local.client import admin

    callers = {each.id: each for each in admin.accounts(cloud)}
    with translating("terminating the local cloud's instances"):
        for account_id, region in admin.places(cloud):
            client = session_of(cloud, callers[account_id]).client("ec2", region)
            found = [
                instance["InstanceId"]
                for reservation in client.describe_instances()["Reservations"]
                for instance in reservation["Instances"]
                if instance["State"]["Name"] not in ("terminated", "shutting-down")
            ]
            if found:
                client.terminate_instances(InstanceIds=found)


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
