"""Describe images."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from imagepipe.clock import iso
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup, product_codes, sharing
from imagepipe.local.aws.ec2.images.last_launched import last_launched
from imagepipe.local.aws.ec2.volumes import block_devices
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image

GETTERS: Mapping[str, Getter] = {
    **filters.by_attribute("architecture", "boot-mode", "description", "ena-support", "name", "platform-details"),
    **filters.by_attribute("source-image-id", "source-image-region", "source-instance-id", "state", "usage-operation"),
    "creation-date": lambda row: creation_date(row),
    "image-id": lambda row: row.id,
    "is-public": lambda row: "all" in row.users,
    "manifest-location": lambda row: location(row),
    "owner-id": lambda row: row.account,
    "root-device-name": lambda row: row.root_device,
    "root-device-type": lambda row: row.root_type,
}


def creation_date(image: Image) -> str:
    """Format the creation date. On EC2 its milliseconds are zero; here they keep images of one second in order."""
    return iso(image.created)[:-4] + "Z"


def location(image: Image) -> str:
    return image.bundle or f"{image.account}/{image.name}"


def describe_images(backend: Backend, call: Call) -> Mapping[str, Any]:
    params = call.params
    if params.get("ImageIds"):
        rows = lookup.images(backend, call, params["ImageIds"])
    else:
        rows = [row for row in backend.database.images.in_region(call.region) if lookup.may_launch(backend, call, row)]
        if not params.get("IncludeDeprecated"):
            rows = [row for row in rows if row.account == call.account or not _is_deprecated(backend, row)]
    if not params.get("IncludeDisabled"):
        _check_no_disabled_state(params)
        rows = [row for row in rows if row.state != "disabled"]
    if params.get("Owners"):
        owners = sharing.audience(call, params["Owners"])
        rows = [row for row in rows if row.account in owners]
    if params.get("ExecutableUsers"):
        own_names = backend.accounts.names_of(call.account)
        users = sharing.executable(call, params["ExecutableUsers"], own_names)
        rows = [row for row in rows if users & set(row.users)]
    describe = partial(to_api, account=call.account, now=backend.clock.now())
    getters = AnswerFilters("DescribeImages", describe, GETTERS)
    shown, token = filters.page(rows, params, getters, least=1, ids="ImageIds")
    return {"Images": [describe(row) for row in shown], "NextToken": token}


def _check_no_disabled_state(params: Mapping[str, Any]) -> None:
    """Raise AwsError for a filter that asks for disabled images, in a request that leaves them out."""
    for item in params.get("Filters", []):
        if item.get("Name") == "state" and "disabled" in item.get("Values", []):
            # The text is EC2's (github.com/turbot/steampipe-plugin-aws, issue 2276).
            raise AwsError(
                "InvalidParameter",
                "When filtering by the 'disabled' state, 'IncludeDisabled' must be set to 'true' in the request.",
            )


def _is_deprecated(backend: Backend, image: Image) -> bool:
    return image.deprecation_time is not None and image.deprecation_time <= backend.clock.now()


def to_api(image: Image, *, account: str, now: datetime) -> dict[str, Any]:
    """Describe an image as DescribeImages does for an account; only the owner learns when it was launched."""
    failed = image.state == "failed"
    return {
        "ImageId": image.id,
        "Name": image.name,
        "Description": image.description if image.description or image.source_instance_id else None,
        "State": image.state,
        "StateReason": {"Code": "Client.InvalidSnapshot", "Message": image.reason} if failed else None,
        "Architecture": image.architecture,
        "BlockDeviceMappings": [block_devices.to_api(disk) for disk in image.mappings],
        "BootMode": image.boot_mode,
        "CreationDate": creation_date(image),
        "DeprecationTime": iso(image.deprecation_time)[:-4] + "Z" if image.deprecation_time else None,
        "DeregistrationProtection": image.protection,
        "EnaSupport": image.ena_support,
        "Hypervisor": "xen",
        "ImageLocation": location(image),
        "ImageType": "machine",
        "ImdsSupport": image.imds_support,
        "LastLaunchedTime": last_launched(image, now) if image.account == account else None,
        "OwnerId": image.account,
        "PlatformDetails": image.platform_details,
        "ProductCodes": product_codes.to_api(image.product_codes) or None,
        "Public": "all" in image.users,
        "RootDeviceName": image.root_device,
        "RootDeviceType": image.root_type,
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_image_region,
        "SourceInstanceId": image.source_instance_id,
        "SriovNetSupport": image.sriov,
        "Tags": tagging.if_any(image.tags),
        "TpmSupport": image.tpm_support,
        "UsageOperation": image.usage_operation,
        "VirtualizationType": "hvm",
    }
