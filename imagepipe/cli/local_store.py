"""The store of the local cloud, and AWS sessions with its accounts, for the commands of `imagepipe local`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagepipe.cloud.session import Session
    from imagepipe.local.client.admin import Account
    from imagepipe.local.client.connect import LocalCloud
    from imagepipe.local.store import Store

ENDED = ("shutting-down", "terminated")


def open_store(root: Path | None) -> Store:
    """Open the store named by the command line or the environment. Raises LocalCloudError."""
    from imagepipe.local.host import rootless
    from imagepipe.local.machines import registry
    from imagepipe.local.store import Store, default_base_cache, default_root

    rootless.find_system_tools(os.environ)
    driver = os.environ.get(registry.VARIABLE)
    return Store.open(
        root or default_root(os.environ),
        base_cache=default_base_cache(os.environ),
        driver=registry.named(driver) if driver else None,
    )


def session_of(cloud: LocalCloud, caller: LocalCloud | Account) -> Session:
    """Open an AWS session with the local cloud, as one of its accounts."""
    from imagepipe.cloud.session import Access, Session

    return Session(
        Access(
            endpoint_url=cloud.endpoint_url,
            region=cloud.region,
            access_key_id=caller.access_key_id,
            secret_access_key=caller.secret_access_key,
        )
    )


def instances_of(cloud: LocalCloud) -> Iterator[tuple[Any, list[dict[str, Any]]]]:
    """Yield the EC2 client of each account and region with instances, and those that have not ended.

    Raises CloudError.
    """
    from imagepipe.cloud.errors import translating
    from imagepipe.local.client import admin

    callers = {each.id: each for each in admin.accounts(cloud)}
    for account_id, region in admin.places(cloud):
        client = session_of(cloud, callers[account_id]).client("ec2", region)
        with translating(f"looking for the local cloud's instances in {region}"):
            pages = client.get_paginator("describe_instances").paginate()
            found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
        yield client, [each for each in found if each["State"]["Name"] not in ENDED]


def terminate_everything(cloud: LocalCloud) -> None:
    """Terminate the instances of all accounts, in every region. Raises CloudError."""
    from imagepipe.cloud.errors import translating

    for client, instances in instances_of(cloud):
        if instances:
            with translating("terminating the local cloud's instances"):
                client.terminate_instances(InstanceIds=[each["InstanceId"] for each in instances])
