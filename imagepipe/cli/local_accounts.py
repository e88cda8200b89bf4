"""`imagepipe local accounts` and `account`: accounts of the local cloud, and keys that are limited by a policy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagepipe.cli.output_format import Format, format_option, print_json
from imagepipe.errors import LocalCloudError

if TYPE_CHECKING:
    from imagepipe.local.client.admin import Account
    from imagepipe.local.client.connect import LocalCloud


@click.command(short_help="List accounts and organizations.")
@format_option()
@click.pass_obj
def accounts(root: Path | None, output: Format) -> None:
    """List the accounts of the local cloud, and the organizations they are in."""
    from imagepipe.local.client import admin

    with _connected(root) as cloud:
        found = admin.accounts(cloud)
    if output == "json":
        print_json([{"account": each.id, "memberships": list(each.memberships)} for each in found])
        return
    for each in found:
        click.echo("  ".join((each.id, *each.memberships)))


@click.group(short_help="Create accounts, and act as one of them.")
def account() -> None:
    """Create accounts on the local cloud and act as one of them, for example to see what is shared with it."""


@account.command()
@click.option("--id", "account_id", metavar="ID", help="Account id (twelve digits).  [default: a free one]")
@click.option(
    "--member",
    "memberships",
    multiple=True,
    metavar="ARN",
    help="ARN of an organization or organizational unit of the account; repeatable.",
)
@click.pass_obj
def add(root: Path | None, account_id: str | None, memberships: Sequence[str]) -> None:
    """Create an account and print its id. An existing account is moved into these organizations and units."""
    from imagepipe.local.client import admin

    with _connected(root) as cloud:
        click.echo(admin.add_account(cloud, *memberships, account_id=account_id).id)


@account.command()
@click.argument("account_id", metavar="ID")
@click.pass_obj
def env(root: Path | None, account_id: str) -> None:
    """Print export lines for a shell that acts as this account."""
    from imagepipe.local.client import admin

    with _connected(root) as cloud:
        found = next((each for each in admin.accounts(cloud) if each.id == account_id), None)
        if found is None:
            raise LocalCloudError(
                f"the local cloud has no account {account_id}",
                hint="imagepipe local accounts lists them; imagepipe local account add creates one",
            )
    _print_exports(cloud, found)


@account.command(short_help="Create an access key limited by a policy.")
@click.option(
    "--policy",
    "file",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="IAM policy, as printed by `imagepipe policy`.",
)
@click.option("--id", "account_id", metavar="ID", help="Create the key for this account.  [default: the store's own]")
@click.pass_obj
def key(root: Path | None, file: Path, account_id: str | None) -> None:
    """Create an access key limited by a policy, and print export lines for a shell that uses it.

    Calls that the policy does not allow are refused as AWS would refuse them. A policy with elements that this cloud
    does not support is refused as a whole.
    """
    from imagepipe.local.client import admin

    with _connected(root) as cloud:
        more = {"account_id": account_id} if account_id else {}
        _print_exports(cloud, admin.add_key(cloud, file.read_text(encoding="utf-8"), **more))


def _print_exports(cloud: LocalCloud, caller: Account) -> None:
    click.echo(f"export AWS_ENDPOINT_URL={cloud.endpoint_url}")
    click.echo(f"export AWS_ACCESS_KEY_ID={caller.access_key_id}")
    click.echo(f"export AWS_SECRET_ACCESS_KEY={caller.secret_access_key}")
    click.echo(f"export AWS_DEFAULT_REGION={cloud.region}")


def _connected(root: Path | None) -> AbstractContextManager[LocalCloud]:
    from imagepipe.cli.local_store import open_store
    from imagepipe.local.client import connect

    return connect.connect(open_store(root), progress=lambda line: click.echo(line, err=True))
