"""AWS's partitions: separate groups of regions, with accounts, resources and ARNs of their own.

Source: IAM user guide, "Amazon Resource Names"; the list is that of botocore 1.44.5, and a test compares them.
"""

from __future__ import annotations

_PARTITIONS = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("us-iso-", "aws-iso"),
    ("eu-isoe-", "aws-iso-e"),
    ("eusc-", "aws-eusc"),
)


def partition(region: str) -> str:
    """Return the partition of a region, as ARNs name it: `aws`, or that of China, GovCloud and so on."""
    return next((name for prefix, name in _PARTITIONS if region.startswith(prefix)), "aws")
