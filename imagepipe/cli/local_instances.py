"""`imagepipe local ssh` and `console`: log in to an instance of the local cloud, and print what its console shows."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagepipe.cli.local_store import instances_of, open_store
from imagepipe.cli.login import ssh_program
from imagepipe.cloud.tags import RUN
from imagepipe.dataclass import dataclass
from imagepipe.errors import ConnectError, LocalCloudError, UsageError
from imagepipe.values import HostPorts

if TYPE_CHECKING:
    from imagepipe.local.store import Store

BOOT_SECONDS = 120.0  # a machine that QEMU emulates takes up to 85 s
USERS = (("ubuntu", "ubuntu"), ("al20", "ec2-user"), ("amzn", "ec2-user"), ("fedora", "fedora"))
"""Parts of image names, and the users of such images."""
DEBIAN_USER = "admin"


@dataclass(frozen=True, slots=True)
class _Found:
    """An instance, and the client of its account and region."""

    instance: dict[str, Any]
    client: Any
    ports: HostPorts

    @property
    def id(self) -> str:
        return str(self.instance["InstanceId"])


@click.command(
    short_help="Print the console of an instance.",
    epilog="""\b
Examples:
  imagepipe local console i-0123456789abcdef0
  imagepipe local console i-0123456789abcdef0 | grep -i error
""",
)
@click.argument("instance", metavar="INSTANCE")
@click.pass_obj
def console(root: Path | None, instance: str) -> None:
    """Print what the console of an instance shows, from its boot on. INSTANCE is its id, or the start of one."""
    from imagepipe.cloud.errors import translating

    found = _find(open_store(root), instance)
    with translating(f"reading the console of {found.id}"):
        answer = found.client.get_console_output(InstanceId=found.id, Latest=True)
    text = answer.get("Output", "")  # botocore has decoded it
    click.echo(text, nl=not text.endswith("\n"))


@click.command(
    short_help="Log in to an instance, or run a command there.",
    epilog="""\b
Examples:
  imagepipe local ssh i-0123456789abcdef0
  imagepipe local ssh i-0123 -i me.pem -- uptime
""",
)
@click.argument("instance", metavar="INSTANCE")
@click.argument("command", nargs=-1, metavar="[-- COMMAND [ARGUMENT]...]")
@click.option(
    "-i",
    "key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Private key.  [default: NAME.pem or NAME of the instance's key pair, here or in ~/.ssh]",
)
@click.option("--user", metavar="NAME", help="User to log in as.  [default: that of the image's distribution]")
@click.pass_obj
def ssh(root: Path | None, instance: str, command: tuple[str, ...], key: Path | None, user: str | None) -> None:
    """Log in to an instance of the local cloud, or run a command there.

    INSTANCE is its id, or the start of one. Its host key is remembered under its id at the first login, so an address
    that another instance had before is no obstacle. `imagepipe ssh` logs in to machines of a build.
    """
    store = open_store(root)
    found = _find(store, instance)
    if found.instance["State"]["Name"] != "running":
        raise ConnectError(f"logging in to {found.id}: it is {found.instance['State']['Name']}")
    program = ssh_program()
    port, host = found.ports.of(22), str(found.instance["PrivateIpAddress"])
    words = [
        *("ssh", "-i", str(key or _key_of(found)), "-o", "IdentitiesOnly=yes", "-p", str(port)),
        *("-o", f"HostKeyAlias={found.id}", "-o", f"UserKnownHostsFile={store.root / 'known_hosts'}"),
        *("-o", "StrictHostKeyChecking=accept-new"),
        f"{user or _user_of(found)}@{host}",
        *command,
    ]
    _await_ssh(found.id, host, port)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, words)  # noqa: S606 - no shell is wanted here


def _find(store: Store, word: str) -> _Found:
    """Return the instance with this id, or with an id that starts like this. Raises LocalCloudError, UsageError."""
    from imagepipe.local.client import connect

    cloud = connect.running(store)
    if cloud is None:
        raise LocalCloudError(
            f"looking for instance {word}: the local cloud of {store.root} does not run",
            hint="imagepipe local serve starts it",
        )
    found = [_Found(each, client, cloud.host_ports) for client, those in instances_of(cloud) for each in those]
    matching = [each for each in found if each.id == word] or [each for each in found if each.id.startswith(word)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(f"several instances begin with '{word}': {_ids(matching)}")
    raise UsageError(f"the local cloud has no instance '{word}'", hint=f"its instances: {_ids(found) or 'none'}")


def _await_ssh(id: str, host: str, port: int) -> None:
    """Wait until sshd answers: an instance is `running` before it has booted. Raises ConnectError."""
    end = time.monotonic() + BOOT_SECONDS
    while True:
        try:
            with socket.create_connection((host, port), timeout=5) as connection:
                if connection.recv(4) == b"SSH-":
                    return
                problem = "something else than SSH answers"
        except OSError as error:
            problem = error.strerror or str(error)
        if time.monotonic() > end:
            raise ConnectError(
                f"logging in to {id}: no SSH at {host}:{port} within {BOOT_SECONDS:g} s: {problem}",
                hint=f"its security group must open port 22 for 127.0.0.1; its console: imagepipe local console {id}",
            )
        time.sleep(0.2)


def _ids(found: Sequence[_Found]) -> str:
    return ", ".join(each.id for each in found)


def _key_of(found: _Found) -> Path:
    """Return the file of the instance's private key. Raises ConnectError."""
    tags = {tag["Key"]: tag["Value"] for tag in found.instance.get("Tags", ())}
    if run := tags.get(RUN):
        raise ConnectError(f"logging in to {found.id}: it is a machine of run {run}", hint=f"imagepipe ssh {run}")
    name = found.instance.get("KeyName")
    if not name:
        raise ConnectError(
            f"logging in to {found.id}: it was launched without a key pair",
            hint="pass -i FILE with a key that its user data allows, or launch it with --key-name",
        )
    places = [folder / file for folder in (Path(), Path.home() / ".ssh") for file in (f"{name}.pem", name)]
    for place in places:
        if place.is_file():
            return place
    raise ConnectError(
        f"logging in to {found.id}: the private key of its key pair '{name}' was not found",
        hint=f"pass it with -i FILE; looked for {', '.join(map(str, places))}",
    )


def _user_of(found: _Found) -> str:
    """Return the login user of the instance's image; Debian's, if the image's name does not tell."""
    from imagepipe.cloud.errors import translating

    with translating(f"looking up {found.instance['ImageId']}"):
        images = found.client.describe_images(ImageIds=[found.instance["ImageId"]], IncludeDeprecated=True)["Images"]
    name = str(images[0]["Name"]).lower() if images else ""
    return next((user for part, user in USERS if part in name), DEBIAN_USER)
