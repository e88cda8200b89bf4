"""KMS keys, which moto keeps."""

from __future__ import annotations

import re
import uuid

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.moto.adapter import Moto

EBS_ALIAS = "alias/aws/ebs"
KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):(\d{12}):(key/.+|alias/.+)")


@dataclass(frozen=True, slots=True)
class Key:
    """A KMS key."""

    id: str
    arn: str
    aliases: tuple[str, ...]
    is_enabled: bool


def keys(moto: Moto, account: str, region: str) -> list[Key]:
    """List the account's keys in a region."""
    found = list(moto.model("kms", account, region).keys.values())
    return [Key(str(key.id), str(key.arn), tuple(key.aliases), bool(key.enabled)) for key in found]


def find_key(moto: Moto, account: str, region: str, name: str) -> Key | None:
    """Find the key in this region by its id, ARN or alias, or by its alias's ARN."""
    rest = name
    if name.startswith("arn:"):
        found = KEY_ARN.fullmatch(name)
        if found is None or found[1] != region:
            return None
        account, rest = found[2], found[3].removeprefix("key/")
    return next((key for key in keys(moto, account, region) if rest == key.id or rest in key.aliases), None)


def ebs_key_id(account: str, region: str) -> str:
    """Return the id that AWS's own key for EBS has, or will have."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{account}/{region}/{EBS_ALIAS}"))


def make_ebs_key(moto: Moto, account: str, region: str) -> None:
    """Make AWS's own key for EBS, unless it exists."""
    with moto.lock("kms"):
        if any(EBS_ALIAS in key.aliases for key in keys(moto, account, region)):
            return
        kms = moto.model("kms", account, region)
        key = kms.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "Default key that protects EBS", None)
        del kms.keys[key.id]
        key.id = ebs_key_id(account, region)
        key.arn = f"arn:aws:kms:{region}:{account}:key/{key.id}"
        key.key_manager = "AWS"
        kms.keys[key.id] = key
        kms.create_alias(key.id, EBS_ALIAS)
        moto.save("kms", account, region)
