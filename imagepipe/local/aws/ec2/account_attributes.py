"""Actions on settings of an account in a region: block public access, encryption by default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import account_settings as settings
from imagepipe.local.aws.ec2.volumes import encryption
from imagepipe.local.aws.moto import kms
from imagepipe.local.aws.protocol.documented_filters import documented
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.query import Call

Action = Callable[[Backend, Call], Mapping[str, Any]]


def get_image_block_public_access(backend: Backend, call: Call) -> Mapping[str, Any]:
    state = settings.setting(backend, call.account, call.region, settings.IMAGES_PUBLIC, settings.IMAGES_AT_FIRST)
    return {"ImageBlockPublicAccessState": state, "ManagedBy": "account"}


def enable_image_block_public_access(backend: Backend, call: Call) -> Mapping[str, Any]:
    state = call.text("ImageBlockPublicAccessState")
    if state != settings.NEW_SHARING:
        raise invalid(f"Value ({state}) for parameter imageBlockPublicAccessState is invalid.")
    settings.change_setting(backend, call.account, call.region, settings.IMAGES_PUBLIC, state)
    return {"ImageBlockPublicAccessState": state}


def get_snapshot_block_public_access(backend: Backend, call: Call) -> Mapping[str, Any]:
    return {"State": settings.public_snapshots(backend, call.account, call.region), "ManagedBy": "account"}


def enable_snapshot_block_public_access(backend: Backend, call: Call) -> Mapping[str, Any]:
    state = call.text("State")
    if state not in (settings.NEW_SHARING, settings.ALL_SHARING):
        raise invalid(f"Value ({state}) for parameter state is invalid.")
    settings.change_setting(backend, call.account, call.region, settings.SNAPSHOTS_PUBLIC, state)
    return {"State": state}


def get_ebs_encryption_by_default(backend: Backend, call: Call) -> Mapping[str, Any]:
    is_on = encryption.encrypts_by_default(backend, call)
    return {"EbsEncryptionByDefault": is_on, "SseType": "sse-kms" if is_on else "none"}


def get_ebs_default_kms_key(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Return the key's ARN, or the alias of AWS's own key."""
    own = settings.setting(backend, call.account, call.region, settings.DEFAULT_KEY, "")
    return {"KmsKeyId": own or kms.EBS_ALIAS}


def modify_ebs_default_kms_key(backend: Backend, call: Call) -> Mapping[str, Any]:
    name = call.text("KmsKeyId")
    key = kms.find_key(backend.moto, call.account, call.region, name)
    if key is None:
        raise AwsError("InvalidParameterValue", f"Invalid KMS key: {name}")  # the code is not documented
    settings.change_setting(backend, call.account, call.region, settings.DEFAULT_KEY, key.arn)
    return {"KmsKeyId": key.arn}


def _setter(name: str, value: str, answer: Mapping[str, Any]) -> Action:
    """Make an action that gives a setting this value."""

    def change(backend: Backend, call: Call) -> Mapping[str, Any]:
        settings.change_setting(backend, call.account, call.region, name, value)
        return answer

    return change


UNBLOCKED = settings.UNBLOCKED
disable_image_block_public_access = _setter(
    settings.IMAGES_PUBLIC, UNBLOCKED, {"ImageBlockPublicAccessState": UNBLOCKED}
)
disable_snapshot_block_public_access = _setter(settings.SNAPSHOTS_PUBLIC, UNBLOCKED, {"State": UNBLOCKED})
enable_ebs_encryption_by_default = _setter(settings.ENCRYPTS, "true", {"EbsEncryptionByDefault": True})
disable_ebs_encryption_by_default = _setter(settings.ENCRYPTS, "false", {"EbsEncryptionByDefault": False})
reset_ebs_default_kms_key = _setter(settings.DEFAULT_KEY, "", {"KmsKeyId": kms.EBS_ALIAS})


def describe_reserved_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe none: an account of the local cloud buys nothing."""
    if ids := call.params.get("ReservedInstancesIds"):
        text = f"The reserved instance ID '{ids[0]}' does not exist"
        raise AwsError("InvalidReservationID.NotFound", text)
    for each in call.filters():
        if each.get("Name") not in documented(call.action) and not str(each.get("Name")).startswith("tag"):
            raise invalid(f"The filter '{each.get('Name')}' is invalid")
    return {"ReservedInstances": []}


def describe_account_attributes(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe limits, and the default VPC, which is moto's."""
    values = {
        "supported-platforms": "VPC",
        "default-vpc": backend.network.default_vpc_id(call.account, call.region) or "none",
        "max-instances": "20",
        "vpc-max-security-groups-per-interface": "5",
        "max-elastic-ips": "5",
        "vpc-max-elastic-ips": "5",
    }
    wanted = call.params.get("AttributeNames") or list(values)
    if unknown := [name for name in wanted if name not in values]:
        raise invalid(f"Value ({unknown[0]}) for parameter attributeName is invalid. Unknown attribute.")
    return {
        "AccountAttributes": [
            {"AttributeName": name, "AttributeValues": [{"AttributeValue": values[name]}]} for name in wanted
        ]
    }
