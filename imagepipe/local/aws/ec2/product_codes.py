"""Product codes and billing of images, which their instances take over.

On EC2, AWS Marketplace and AWS itself set them; here the cloud's own interface does. An image that is created from an
instance keeps both. A registered image has the product codes of its snapshots, and no billing (API reference,
RegisterImage: the billing is derived from metadata that a snapshot may lack).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.state.records import ORDINARY, Image


def assign(backend: Backend, values: Mapping[str, Any]) -> None:
    """Set the product codes and the billing of an image. Raises AwsError if it does not exist."""
    with backend.database.change():
        image = backend.database.images.get(str(values.get("image")))
        if image is None:
            raise invalid(f"image {values.get('image')} does not exist")
        codes = tuple(map(str, values.get("product_codes", image.product_codes)))
        backend.database.put(
            replace(
                image,
                product_codes=codes,
                platform_details=str(values.get("platform_details", image.platform_details)),
                usage_operation=str(values.get("usage_operation", image.usage_operation)),
            )
        )
        for disk in image.mappings:
            snapshot = backend.database.snapshots.get(disk.snapshot_id or "")
            if snapshot is not None:
                backend.database.put(replace(snapshot, product_codes=codes))


def check_copy(image: Image, account: str) -> None:
    """Raise AwsError for a copy of somebody else's image that is sold or billed (EC2 user guide, "Copy an AMI")."""
    if image.account == account:
        return
    if image.product_codes:
        raise AwsError("InvalidRequest", "Images from AWS Marketplace cannot be copied to another AWS account")
    if image.usage_operation != ORDINARY:
        raise AwsError("InvalidRequest", "Images with EC2 BillingProduct codes cannot be copied to another AWS account")


def to_api(codes: Iterable[str]) -> list[dict[str, str]]:
    """Describe product codes as EC2 does."""
    return [{"ProductCodeId": code, "ProductCodeType": "marketplace"} for code in codes]
