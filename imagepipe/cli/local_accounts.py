"""`imagepipe local accounts` and `account`: other accounts of the same store, to share with and to look from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.errors import LocalCloudError

if TYPE_CHECKING:
    from imagepipe.local.control import LocalCloud


@click.command()
@click.pass_obj
def accounts(root: Path | None) -> None:
    """List the accounts of the local cloud, and the organizations they are in."""
    from imagepipe.local.gateway import remote

    with _connected(root) as cloud:
        for each in remote.accounts(cloud):
            click.echo("  ".join((each.id, *each.memberships)))


@click.group()
def account() -> None:
    """Make other accounts on the local cloud, and act as one: what is shared with it can be seen from there."""


@account.command()
@click.option("--id", "account_id", metavar="ID", help="Twelve digits.  [default: any that are free]")
@click.option("--member", "memberships", multiple=True, metavar="ARN", help="An organization or unit that it is in.")
@click.pass_obj
def add(root: Path | None, account_id: str | None, memberships: Sequence[str]) -> None:
    """Make an account and print its id; one that is there is put into these organizations and units."""
    from imagepipe.local.gateway import remote

    with _connected(root) as cloud:
        click.echo(remote.add_account(cloud, *memberships, account_id=account_id).id)


@account.command()
@click.argument("account_id", metavar="ID")
@click.pass_obj
def env(root: Path | None, account_id: str) -> None:
    """Print export lines for a shell that acts as this account."""
    from imagepipe.local.gateway import remote

    with _connected(root) as cloud:
        found = next((each for each in remote.accounts(cloud) if each.id == account_id), None)
        if found is None:
            raise LocalCloudError(
                f"the local cloud has no account {account_id}",
                hint="imagepipe local accounts lists them; imagepipe local account add makes one",
            )
    click.echo(f"export AWS_ENDPOINT_URL={cloud.endpoint_url}")
    click.echo(f"export AWS_ACCESS_KEY_ID={found.access_key_id}")
    click.echo(f"export AWS_SECRET_ACCESS_KEY={found.secret_access_key}")
    click.echo(f"export AWS_DEFAULT_REGION={cloud.region}")


def _connected(root: Path | None) -> AbstractContextManager[LocalCloud]:
    from imagepipe.cli.local import open_store
    from imagepipe.local import control

    return control.connect(open_store(root), progress=lambda line: click.echo(line, err=True))
