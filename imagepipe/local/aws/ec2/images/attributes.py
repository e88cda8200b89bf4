"""Change attributes of an existing image: permissions, description, deprecation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup, product_codes, sharing
from imagepipe.local.aws.ec2.account_settings import blocks_public_images
from imagepipe.local.aws.ec2.images import availability, create
from imagepipe.local.aws.ec2.images.last_launched import last_launched
from imagepipe.local.aws.ec2.volumes import block_devices, encryption
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image

MAX_DEPRECATION = timedelta(days=3653)  # EC2 user guide, "Deprecate an AMI": ten years, for a private one


def describe_image_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    image = lookup.own_image(backend, call, call.text("ImageId"))
    attribute = call.text("Attribute")
    answers: dict[str, tuple[str, Any]] = {
        "description": ("Description", {"Value": image.description}),
        "launchPermission": ("LaunchPermissions", sharing.to_api(image.users)),
        "blockDeviceMapping": ("BlockDeviceMappings", [block_devices.to_api(disk) for disk in image.mappings]),
        "bootMode": ("BootMode", {"Value": image.boot_mode}),
        "tpmSupport": ("TpmSupport", {"Value": image.tpm_support}),
        "uefiData": ("UefiData", {"Value": image.uefi_data}),
        "sriovNetSupport": ("SriovNetSupport", {"Value": image.sriov}),
        "imdsSupport": ("ImdsSupport", {"Value": image.imds_support}),
        "deregistrationProtection": ("DeregistrationProtection", {"Value": image.protection}),
        "productCodes": ("ProductCodes", product_codes.to_api(image.product_codes)),
        "kernel": ("KernelId", {}),
        "ramdisk": ("RamdiskId", {}),
        "lastLaunchedTime": (
            "LastLaunchedTime",
            {"Value": last_launched(image, backend.clock.now())},
        ),
    }
    if attribute not in answers:
        raise invalid(f"Value ({attribute}) for parameter attribute is invalid. Unknown attribute.")
    name, value = answers[attribute]
    return {"ImageId": image.id, name: value}


def modify_image_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    image = lookup.own_image(backend, call, call.text("ImageId"))
    params = call.params
    attribute = _attribute(params)
    if "Description" in params or attribute == "description":
        text = str(params.get("Description", params).get("Value", ""))
        changed = replace(image, description=create.checked_description(text))
    elif "ImdsSupport" in params or attribute == "imdsSupport":
        value = params.get("ImdsSupport", {}).get("Value") or params.get("Value")
        if value != "v2.0":
            raise invalid(f"Value ({value}) for parameter imdsSupport is invalid.")
        changed = replace(image, imds_support=value)
    elif attribute in ("", "launchPermission"):
        changed = _shared(backend, image, params)
    else:
        raise conflicting(f"The attribute {attribute} cannot be modified")
    backend.database.put(changed)
    return {}


def _attribute(params: Mapping[str, Any]) -> str:
    """Return the attribute that a request names; Ansible's ec2_ami sends it with a capital, which EC2 accepts."""
    name = str(params.get("Attribute") or "")
    return name[:1].lower() + name[1:]


def _shared(backend: Backend, image: Image, params: Mapping[str, Any]) -> Image:
    users = sharing.changed_users(image.users, params, "LaunchPermission")
    added = sharing.added(params, "LaunchPermission")
    if added:
        availability.check_enabled(image)
    snapshots = [backend.database.snapshots.get(disk.snapshot_id or "") for disk in image.mappings]
    encrypted = [snapshot for snapshot in snapshots if snapshot is not None and snapshot.encrypted]
    if "all" in added and encrypted:
        raise AwsError(
            "UnsupportedOperation", "Encrypted snapshots can't be shared publicly. Specify another snapshot."
        )
    if "all" in added and blocks_public_images(backend, image.account, image.region):
        raise AwsError(
            "OperationNotPermitted",
            "You can't publicly share this image because block public access for AMIs is enabled for this account. "
            "To publicly share the image, you must call the DisableImageBlockPublicAccess API.",
        )
    if added and any(encryption.is_aws_managed(backend, snapshot) for snapshot in encrypted):
        raise AwsError(
            "InvalidParameter",
            "Snapshots encrypted with the AWS Managed CMK can't be shared. Specify another snapshot.",
        )
    return replace(image, users=users)


def reset_image_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    image = lookup.own_image(backend, call, call.text("ImageId"))
    if _attribute(call.params) != "launchPermission":
        raise invalid("Only launchPermission can be reset")
    backend.database.put(replace(image, users=()))
    return {}


def enable_image_deprecation(backend: Backend, call: Call) -> Mapping[str, Any]:
    image = lookup.own_image(backend, call, call.text("ImageId"))
    moment = call.params["DeprecateAt"].replace(tzinfo=UTC)
    now = backend.clock.now()
    if moment < now.replace(second=0, microsecond=0):
        raise invalid("The deprecation date must be in the future")
    if moment > now + MAX_DEPRECATION:
        raise invalid("The deprecation date must be within ten years")
    # "If you specify a value for seconds, Amazon EC2 rounds the seconds to the nearest minute" (API reference).
    rounded = (moment + timedelta(seconds=30)).replace(second=0, microsecond=0)
    backend.database.put(replace(image, deprecation_time=rounded))
    return {"Return": True}


def disable_image_deprecation(backend: Backend, call: Call) -> Mapping[str, Any]:
    image = lookup.own_image(backend, call, call.text("ImageId"))
    backend.database.put(replace(image, deprecation_time=None))
    return {"Return": True}
