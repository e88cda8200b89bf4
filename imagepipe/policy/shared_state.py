"""Permissions for shared state: the bucket with the runs, and the key that encrypts it."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe.iam.document import Conditions, Statement
from imagepipe.partitions import partition

ALIAS = "alias/"


def shared_state(bucket: str, prefix: str, kms_key: str | None, *, region: str) -> Iterator[Statement]:
    """Allow reading and writing runs below a prefix, which is empty or ends with a slash. Nothing is ever deleted."""
    arn = f"arn:{partition(region)}:s3:::{bucket}"
    # HeadBucket has no prefix, so a condition on the prefix would deny it.
    yield Statement("ListState", ("s3:ListBucket",), (arn,))
    yield Statement("ReadAndWriteState", ("s3:GetObject", "s3:PutObject"), (f"{arn}/{prefix}*",))
    if kms_key:
        resource, conditions = _key(kms_key, region)
        yield Statement("UseKeyOfState", ("kms:GenerateDataKey", "kms:Decrypt"), (resource,), conditions)


def _key(key: str, region: str) -> tuple[str, Conditions]:
    """Return the resource of a KMS key, and the condition for a key that is named by its alias."""
    if key.startswith("arn:") and f":{ALIAS}" not in key:
        return key, {}
    any_key = f"arn:{partition(region)}:kms:*:*:key/"
    if ALIAS in key:
        alias = ALIAS + key.partition(ALIAS)[2]
        return f"{any_key}*", {"ForAnyValue:StringEquals": {"kms:ResourceAliases": (alias,)}}
    return f"{any_key}{key}", {}
