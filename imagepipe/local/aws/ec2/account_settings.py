"""Settings of an account in a region: public sharing, encryption by default, and its key."""

from __future__ import annotations

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.state.records import Setting

IMAGES_PUBLIC = "image-block-public-access"
SNAPSHOTS_PUBLIC = "snapshot-block-public-access"
ENCRYPTS = "ebs-encryption-by-default"
DEFAULT_KEY = "ebs-default-kms-key"

UNBLOCKED = "unblocked"
NEW_SHARING = "block-new-sharing"
ALL_SHARING = "block-all-sharing"
IMAGES_AT_FIRST = NEW_SHARING
"""EC2 user guide, "Block public access to your AMIs": on for accounts made since October 2023."""
SNAPSHOTS_AT_FIRST = UNBLOCKED  # EBS user guide, "Block public access for snapshots": off until somebody turns it on


def setting(backend: Backend, account: str, region: str, name: str, at_first: str) -> str:
    """Return the setting, or its initial value."""
    found = backend.database.settings.get(_key(account, region, name))
    return found.value if found else at_first


def change_setting(backend: Backend, account: str, region: str, name: str, value: str) -> None:
    """Set the setting, as part of the current change of the database."""
    backend.database.put(Setting(id=_key(account, region, name), account=account, region=region, value=value))


def blocks_public_images(backend: Backend, account: str, region: str) -> bool:
    return setting(backend, account, region, IMAGES_PUBLIC, IMAGES_AT_FIRST) != UNBLOCKED


def public_snapshots(backend: Backend, account: str, region: str) -> str:
    """Return the state of block public access for snapshots."""
    return setting(backend, account, region, SNAPSHOTS_PUBLIC, SNAPSHOTS_AT_FIRST)


def _key(account: str, region: str, name: str) -> str:
    return f"{account}/{region}/{name}"
