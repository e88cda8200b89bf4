"""`imagepipe local run` and `reset`: run a command against the local cloud, and begin again with an empty one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.cli.local_store import open_store, terminate_everything
from imagepipe.errors import LocalCloudError, UsageError

if TYPE_CHECKING:
    from imagepipe.local.client.connect import LocalCloud


@click.command(
    short_help="Run a command that uses the local cloud.",
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  imagepipe local run -- aws ec2 describe-images --owners self
  imagepipe local run -- terraform apply
  imagepipe local run -- sh
""",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARGUMENT]...")
@click.pass_obj
def run(root: Path | None, command: tuple[str, ...]) -> int:
    """Run a command with the local cloud's endpoint, keys and region in its environment; its exit code is ours.

    The cloud is started if it does not run, and runs at least as long as the command. AWS profiles and other AWS_
    variables do not reach the command.
    """
    from imagepipe.local.client.connect import connect

    with connect(open_store(root), progress=lambda line: click.echo(line, err=True)) as cloud:
        sys.stdout.flush()
        # A Ctrl-C reaches the command too, which decides about its own end.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = subprocess.run(
                command,
                env=environment_of(cloud, os.environ),
                check=False,
                preexec_fn=lambda: signal.signal(signal.SIGINT, before),
            ).returncode
        except OSError as error:
            raise UsageError(
                f"running {command[0]}: {error.strerror}", hint="name a program of $PATH, or a path of one"
            ) from error
        finally:
            signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def environment_of(cloud: LocalCloud, environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which every AWS client talks to the local cloud and to no other."""
    kept = {name: value for name, value in environ.items() if not name.startswith("AWS_")}
    return kept | {
        "AWS_ENDPOINT_URL": cloud.endpoint_url,
        "AWS_ACCESS_KEY_ID": cloud.access_key_id,
        "AWS_SECRET_ACCESS_KEY": cloud.secret_access_key,
        "AWS_DEFAULT_REGION": cloud.region,
        "AWS_REGION": cloud.region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "no_proxy": ",".join(filter(None, (environ.get("no_proxy") or environ.get("NO_PROXY"), "127.0.0.1"))),
    }


@click.command(short_help="Stop the cloud and delete everything in it.")
@click.option("--yes", "is_confirmed", is_flag=True, help="Do not ask; needed without a terminal.")
@click.pass_obj
def reset(root: Path | None, is_confirmed: bool) -> None:
    """Stop the local cloud and delete everything in it: instances, images, buckets, accounts, faults.

    The base image and the access key stay, so the next start is quick and exported variables stay valid.
    """
    from imagepipe.deletion import delete_tree
    from imagepipe.local.client import connect

    store = open_store(root)
    if not is_confirmed:
        if not sys.stdin.isatty():
            raise UsageError(
                f"deleting everything in {store.root} needs a confirmation, and there is no terminal to ask on",
                hint="run it again with --yes",
            )
        click.confirm(f"delete all instances, images and buckets in {store.root}?", abort=True)
    connect.stop(store, terminate=terminate_everything)
    for folder in store.data():
        try:
            delete_tree(folder)
        except OSError as error:
            raise LocalCloudError(f"deleting {folder}: {error.strerror}") from error
    click.echo(f"the local cloud of {store.root} is empty")
