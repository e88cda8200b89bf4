"""`imagepipe local serve`: run the local cloud in the foreground, and tell how to connect to it."""

from __future__ import annotations

import ipaddress
import os
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.cli.aws_profile import write_profile
from imagepipe.cli.local_faults import FaultsFile, read_faults
from imagepipe.cli.local_store import open_store
from imagepipe.cli.pass_options import pass_options
from imagepipe.dataclass import dataclass
from imagepipe.errors import LocalCloudError, UsageError
from imagepipe.values import PORT_OFFSET, HostPorts

if TYPE_CHECKING:
    from imagepipe.local.daemon.main import ExternalAddress
    from imagepipe.local.daemon.rendezvous import Serving
    from imagepipe.local.store import Store

TOKEN_VARIABLE = "IMAGEPIPE_LOCAL_TOKEN"  # noqa: S105 the variable's name
TOKEN_LETTERS = 16


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of `imagepipe local serve`."""

    port: int | None
    address: str | None
    env_only: bool
    profile: str | None
    faults_file: Path | None


@click.command(
    short_help="Run the cloud for other tools.",
    epilog=f"""\b
Examples:
  imagepipe local serve
  imagepipe local serve --port 4566 --faults throttled.yaml
  imagepipe local serve --profile local        # then: aws --profile local ec2 describe-images --owners self
  {TOKEN_VARIABLE}=$(openssl rand -hex 16) imagepipe local serve --address 192.0.2.7
""",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port of 127.0.0.1.  [default: a free one]")
@click.option(
    "--address",
    metavar="ADDRESS",
    help=f"Also listen on this address, for other machines. Needs a token in ${TOKEN_VARIABLE}, which they must send.",
)
@click.option("--env", "env_only", is_flag=True, help="Print only export lines for a shell.")
@click.option(
    "--profile",
    metavar="NAME",
    help="Also write an AWS profile of this name with the endpoint and the keys; one of yours is not replaced.",
)
@click.option(
    "--faults",
    "faults_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Inject the faults in this file (docs/how-to/faults.md).",
)
@pass_options(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Run the local cloud in the foreground, for the AWS CLI, Packer and other tools."""
    from imagepipe.local.client import connect
    from imagepipe.local.daemon import main as server

    beyond = _external_address(options.address)
    wanted = read_faults(options.faults_file) if options.faults_file else None
    # Of the environment before the next lines, so that $AWS_CONFIG_FILE is heeded.
    shown = _Shown(options, dict(os.environ), beyond)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # moto would use them, even a profile that does not exist
    store = open_store(click.get_current_context().obj)
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
        _keep_alive(store, found, shown, stop)
        return
    server.prepare(store, lambda line: click.echo(line, err=True))
    server.set_on_signals(stop)  # only now, so that Ctrl-C interrupts the build of the base image
    build = partial(server.build, faults=wanted.faults, seed=wanted.seed) if wanted else server.build

    def ready(it: Serving) -> None:
        shown.print(store, it)
        _print_faults(wanted)

    server.serve(store, port=options.port, ready=ready, stop=stop, build=build, idle_seconds=None, external=beyond)


@dataclass(frozen=True, slots=True)
class _Shown:
    """The lines that `serve` prints, and the profile that it writes, once the cloud serves."""

    options: ServeOptions
    environ: Mapping[str, str]
    beyond: ExternalAddress | None

    def print(self, store: Store, serving: Serving) -> None:
        if self.options.profile:  # first, because it may be refused
            file = write_profile(self.options.profile, _profile(store, serving), self.environ)
            click.echo(f"profile {self.options.profile} is in {file}", err=True)
        print_exports(store, serving, self.options.env_only, self.beyond)


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


def _keep_alive(store: Store, found: Serving, shown: _Shown, stop: threading.Event) -> None:
    """Keep a running cloud alive while this process runs."""
    import fcntl

    from imagepipe.local.daemon import rendezvous

    if shown.options.port not in (None, found.port):
        raise LocalCloudError(
            f"serving {store.root} on port {shown.options.port}: its cloud already runs on port {found.port}"
            f" (process {found.pid})",
            hint="leave out --port, or stop that cloud with `imagepipe local stop`",
        )
    with rendezvous.held(store.clients, fcntl.LOCK_SH):
        shown.print(store, found)
        while not stop.wait(1.0):
            if not found.is_alive():
                raise LocalCloudError(
                    f"the local cloud's process {found.pid} has ended", hint=f"its log is {store.log}"
                )


def print_exports(store: Store, serving: Serving, env_only: bool, beyond: ExternalAddress | None = None) -> None:
    """Print the variables that other tools need to reach the cloud."""
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


def _profile(store: Store, serving: Serving) -> dict[str, str]:
    """Return the settings of an AWS profile that leads to the cloud."""
    from imagepipe.local.client.connect import REGION

    keys = store.credentials()
    return {
        "endpoint_url": serving.endpoint_url,
        "region": REGION,
        "aws_access_key_id": keys.access_key_id,
        "aws_secret_access_key": keys.secret_access_key,
    }
