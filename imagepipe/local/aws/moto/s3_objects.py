"""The bytes of S3's objects, for services that read them without S3's own interface."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from moto.utilities.utils import get_partition

from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.protocol.errors import AwsError


def object_file(moto: Moto, account: str, region: str, *, bucket: str, key: str) -> Path:
    """Return the file with an object's bytes. Raises AwsError if the account has none of this key in the region."""
    with moto.lock("s3"):
        buckets: Any = moto.model("s3", account, get_partition(region)).buckets
        found = buckets.get(bucket)
        if found is None or found.region_name != region:
            where = f"is in {found.region_name}" if found else "does not exist"
            raise AwsError(
                "InvalidParameter", f"The bucket {bucket} {where}; it must be a bucket of this account in {region}"
            )
        kept = found.keys.get(key)
        path = getattr(getattr(kept, "_value_buffer", None), "path", None)
        if path is None:
            raise AwsError("InvalidParameter", f"The object {key} does not exist in bucket {bucket}, or is empty")
        return Path(path)
