"""Call the cloud's own interface (`aws/admin`) from another process: accounts, clock, faults."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.faults.faults import Fault, to_json
from imagepipe.local.client.connect import LocalCloud, fetch
from imagepipe.local.disks.import_image import DiskImage
from imagepipe.local.store import ACCOUNT_ID

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Account:
    """An account of the local cloud, with an access key."""

    id: str
    access_key_id: str
    secret_access_key: str
    memberships: tuple[str, ...]
    """ARNs of the organization and of the units that it is in."""


def accounts(cloud: LocalCloud) -> list[Account]:
    """List the cloud's accounts, the store's own first. Raises LocalCloudError."""
    return [_account(cloud, row) for row in ask(cloud, "GET", "accounts")]


def add_account(cloud: LocalCloud, *memberships: str, account_id: str | None = None) -> Account:
    """Add an account in these organizations and units, or move an existing one there. Raises LocalCloudError."""
    return _account(cloud, ask(cloud, "POST", "accounts", {"account": account_id, "memberships": memberships}))


def add_key(cloud: LocalCloud, policy: str, *, account_id: str = ACCOUNT_ID) -> Account:
    """Add an access key to an account, which may do what a policy (JSON) allows. Raises LocalCloudError."""
    row = ask(cloud, "POST", "keys", {"account": account_id, "policy": policy})
    return Account(row["account"], row["access_key_id"], row["secret_access_key"], ())


def add_image(cloud: LocalCloud, disk: DiskImage, *, name: str, description: str, region: str) -> str:
    """Register a disk in the store's folder of imports, and return the image's id. Raises LocalCloudError."""
    wanted = {
        "file": disk.path.name,
        "name": name,
        "description": description,
        "region": region,
        "size_gib": disk.size_gib,
        "architecture": disk.architecture,
        "boot_mode": disk.boot_mode,
    }
    return str(ask(cloud, "POST", "images", wanted)["image"])


def places(cloud: LocalCloud) -> list[tuple[str, str]]:
    """List the account and region of all instances that have not ended. Raises LocalCloudError."""
    return [(account, region) for account, region in ask(cloud, "GET", "places")]


def faults(cloud: LocalCloud) -> list[dict[str, Any]]:
    """List the active faults, each with its `words` and its `hits`. Raises LocalCloudError."""
    rows: list[dict[str, Any]] = ask(cloud, "GET", "faults")
    return rows


def set_faults(cloud: LocalCloud, wanted: Sequence[Fault], seed: int) -> None:
    """Replace the active faults. Raises LocalCloudError."""
    ask(cloud, "PUT", "faults", {"faults": [to_json(fault) for fault in wanted], "seed": seed})


def clear_faults(cloud: LocalCloud) -> None:
    """Remove all faults. Raises LocalCloudError."""
    ask(cloud, "DELETE", "faults")


def injected(cloud: LocalCloud) -> dict[str, int]:
    """Count the faults injected since the cloud's process began, by effect and action. Raises LocalCloudError."""
    counts: dict[str, int] = ask(cloud, "GET", "injected")
    return counts


def _account(cloud: LocalCloud, row: Mapping[str, Any]) -> Account:
    is_first = row["account"] == ACCOUNT_ID
    return Account(
        id=row["account"],
        access_key_id=cloud.access_key_id if is_first else row["access_key_id"],
        secret_access_key=cloud.secret_access_key if is_first else row["secret_access_key"],
        memberships=tuple(row["memberships"]),
    )


def ask(cloud: LocalCloud, method: str, name: str, body: object = None) -> Any:
    """Call `/_imagepipe/NAME` as the store's first account, and return the answer. Raises LocalCloudError."""
    data = b"" if body is None else json.dumps(body).encode()
    request = AWSRequest(method=method, url=f"{cloud.endpoint_url}/_imagepipe/{name}", data=data)
    SigV4Auth(Credentials(cloud.access_key_id, cloud.secret_access_key), "ec2", cloud.region).add_auth(request)
    prepared = urllib.request.Request(  # noqa: S310 a literal http URL
        request.url, data=data, headers=dict(request.headers), method=method
    )
    return fetch(prepared, f"asking the local cloud at {cloud.endpoint_url} for {name}", SECONDS)
