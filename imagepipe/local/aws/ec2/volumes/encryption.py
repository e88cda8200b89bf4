"""Which KMS key a volume or a copy is encrypted with, and what EC2 makes of a key that is none.

Nothing is encrypted here: what would be is recorded. The keys are moto's; the account's default key is made when
it is first needed.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.account_settings import DEFAULT_KEY, ENCRYPTS, setting
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Snapshot

ALIAS = "alias/aws/ebs"
KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]+):(\d{12}):(key/.+|alias/.+)")
NOT_ACCESSIBLE = "Given key ID is not accessible"


@dataclass(frozen=True, slots=True)
class Encryption:
    """How something is encrypted, or would be."""

    is_on: bool
    kms_key_id: str | None = None
    """The key's ARN."""
    problem: str = ""
    """Why it cannot be; EC2 looks at the key only after it has answered (API reference, RunInstances, CopyImage)."""


def of_volume(
    backend: Backend, call: Call, *, is_asked: bool, key: str | None, snapshot: Snapshot | None
) -> Encryption:
    """Of a volume, by what was asked, what it is made of, and the account's settings.

    EBS user guide, "Encryption outcomes": one's own encrypted snapshot hands on its key, somebody else's does not.
    """
    if key:
        return _with_key(backend, call, key)
    if snapshot is not None and snapshot.encrypted:
        if snapshot.account == call.account and snapshot.kms_key_id:
            return _with_key(backend, call, snapshot.kms_key_id)
        return _with_default(backend, call)
    if is_asked or encrypts_by_default(backend, call):
        return _with_default(backend, call)
    return Encryption(False)


def of_copy(backend: Backend, call: Call, source: Snapshot) -> Encryption:
    """Of a copy: with the key that is named, else with the default key of the region where the copy will be."""
    key = call.params.get("KmsKeyId")
    if not (call.params.get("Encrypted") or source.encrypted or encrypts_by_default(backend, call)):
        if key:
            raise without_encryption()
        return Encryption(False)
    return _with_key(backend, call, str(key)) if key else _with_default(backend, call)


def without_encryption() -> AwsError:
    return AwsError("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")


def encrypts_by_default(backend: Backend, call: Call) -> bool:
    """The account encrypts all new volumes and copies in this region."""
    return setting(backend, call.account, call.region, ENCRYPTS, "false") == "true"


def default_key(backend: Backend, call: Call) -> str:
    """ARN of the key that is used where none is named."""
    return setting(backend, call.account, call.region, DEFAULT_KEY, "") or aws_managed_key(backend, call)


def aws_managed_key(backend: Backend, call: Call) -> str:
    """ARN of AWS's own key for EBS, which moto gets once the change that needs it is made."""
    keys = _keys(backend, call.account, call.region)
    for key in keys:
        if ALIAS in key.aliases:
            return str(key.arn)
    backend.database.later(partial(_make_aws_managed_key, backend, call.account, call.region))
    return f"arn:aws:kms:{call.region}:{call.account}:key/{_aws_managed_id(call.account, call.region)}"


def is_aws_managed(backend: Backend, snapshot: Snapshot) -> bool:
    """Encrypted with AWS's own key for EBS, which nobody else can be given."""
    if not snapshot.encrypted:
        return False
    if not snapshot.kms_key_id:  # written before keys were recorded
        return True
    name = snapshot.kms_key_id.rpartition("/")[2]
    keys = _keys(backend, snapshot.account, snapshot.region)
    return name == _aws_managed_id(snapshot.account, snapshot.region) or any(
        key.id == name and ALIAS in key.aliases for key in keys
    )


def _with_default(backend: Backend, call: Call) -> Encryption:
    return Encryption(True, default_key(backend, call))


def _with_key(backend: Backend, call: Call, name: str) -> Encryption:
    if name in (ALIAS, aws_managed_key(backend, call)):
        return Encryption(True, aws_managed_key(backend, call))
    key = find_key(backend, call, name)
    if key is None:
        return Encryption(True, name, NOT_ACCESSIBLE)
    return Encryption(True, str(key.arn), "" if key.enabled else f"{key.arn} is disabled")


def find_key(backend: Backend, call: Call, name: str) -> Any:
    """moto's key of this id, ARN, alias or alias's ARN, in this region; None if there is none."""
    account, rest = call.account, name
    if name.startswith("arn:"):
        found = KEY_ARN.fullmatch(name)
        if found is None or found[1] != call.region:
            return None
        account, rest = found[2], found[3].removeprefix("key/")
    for key in _keys(backend, account, call.region):
        if rest == key.id or rest in key.aliases:
            return key
    return None


def _keys(backend: Backend, account: str, region: str) -> list[Any]:
    return list(backend.moto.model("kms", account, region).keys.values())


def _aws_managed_id(account: str, region: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{account}/{region}/{ALIAS}"))


def _make_aws_managed_key(backend: Backend, account: str, region: str) -> None:
    with backend.moto.lock("kms"):
        kms = backend.moto.model("kms", account, region)
        if any(ALIAS in key.aliases for key in kms.keys.values()):
            return
        key = kms.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", "Default key that protects EBS", None)
        del kms.keys[key.id]
        key.id = _aws_managed_id(account, region)
        key.arn = f"arn:aws:kms:{region}:{account}:key/{key.id}"
        key.key_manager = "AWS"
        kms.keys[key.id] = key
        kms.create_alias(key.id, ALIAS)
        backend.moto.save("kms", account, region)
