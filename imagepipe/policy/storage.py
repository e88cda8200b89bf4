"""Permissions for buckets and KMS keys."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe import render
from imagepipe.iam.document import Conditions, Statement
from imagepipe.partitions import partition
from imagepipe.policy.context import PolicyContext
from imagepipe.spec.bundle_rules import bundle_region
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.models import InstanceStoreOutput

EXEC_READ = "aws-exec-read"
_VIA_EBS = ("GenerateDataKeyWithoutPlaintext", "Decrypt", "ReEncryptFrom", "ReEncryptTo")
"""Actions that EBS performs for the caller, besides CreateGrant and DescribeKey (EBS user guide, "Permissions for IAM
users")."""


def _folder(output: InstanceStoreOutput, region: str) -> str:
    """Return the key pattern of the spec's bundles in a region, with `*` for parts that only a run knows."""
    late = {"source": dict.fromkeys(("id", "name", "owner"), "*"), "region": region}
    prefix = render.render_late(output.prefix, late)
    for sample in SAMPLE_BUILD.names().values():
        prefix = prefix.replace(sample, "*")
    return f"{prefix}/*" if prefix else "*"


def _buckets(context: PolicyContext, output: InstanceStoreOutput) -> dict[str, str]:
    """Return the ARNs of the buckets by region."""
    return {
        region: f"arn:{partition(region)}:s3:::{bundle_region(output, region, home=context.home).bucket}"
        for region in context.everywhere
    }


def _objects(context: PolicyContext, output: InstanceStoreOutput) -> tuple[str, ...]:
    return tuple(f"{arn}/{_folder(output, region)}" for region, arn in _buckets(context, output).items())


def settings(context: PolicyContext) -> Iterator[Statement]:
    """Allow reading the settings that decide whether EC2 can read the buckets."""
    if output := context.bundles:
        actions = ("s3:GetBucketOwnershipControls", "s3:GetEncryptionConfiguration")
        yield Statement("ReadBucketSettings", actions, tuple(_buckets(context, output).values()))


def lists(context: PolicyContext) -> Iterator[Statement]:
    """Allow listing the bundles' folders; this also distinguishes a missing key from a forbidden one."""
    if output := context.bundles:
        for region, bucket in _buckets(context, output).items():
            condition = {"StringLikeIfExists": {"s3:prefix": (_folder(output, region),)}}
            yield Statement("ListBundles", ("s3:ListBucket",), (bucket,), condition)


def lists_all(context: PolicyContext) -> Iterator[Statement]:
    """Allow listing whole buckets, because a sweep does not know the prefixes of runs."""
    if output := context.bundles:
        yield Statement("ListBuckets", ("s3:ListBucket",), tuple(_buckets(context, output).values()))


def puts(context: PolicyContext) -> Iterator[Statement]:
    """Allow puts with the ACL that lets EC2 read, and with no other."""
    if output := context.bundles:
        condition = {"StringEquals": {"s3:x-amz-acl": (EXEC_READ,)}}
        objects = _objects(context, output)
        yield Statement("PutBundles", ("s3:PutObject", "s3:PutObjectAcl"), objects, condition)


def gets(context: PolicyContext) -> Iterator[Statement]:
    if output := context.bundles:
        yield Statement("UseBundles", ("s3:GetObject",), _objects(context, output))


def deletes(context: PolicyContext) -> Iterator[Statement]:
    if output := context.bundles:
        yield Statement("UseBundles", ("s3:DeleteObject",), _objects(context, output))


def _key(region: str, key: str) -> tuple[str, Conditions]:
    """Return a key's ARN, and a condition on its alias, which is not part of the ARN."""
    alias = key.split(":", 5)[5] if key.startswith("arn:") else key
    if alias.startswith("alias/"):
        condition = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": (alias,)}}
        return f"arn:{partition(region)}:kms:{region}:*:key/*", condition
    if key.startswith("arn:"):
        return key, {}
    return f"arn:{partition(region)}:kms:{region}:*:key/{key}", {}


def encrypts(context: PolicyContext, keys: dict[str, set[str]]) -> Iterator[Statement]:
    """Allow EBS to use customer keys, by region; its own key needs no permission."""
    for region, names in sorted(keys.items()):
        for name in sorted(names):
            key, condition = _key(region, name)
            via = {**condition, "StringLike": {"kms:ViaService": ("ec2.*.amazonaws.com*",)}}
            grants = {**condition, "Bool": {"kms:GrantIsForAWSResource": ("true",)}}
            yield Statement("EncryptThroughEbs", tuple(f"kms:{each}" for each in _VIA_EBS), (key,), via)
            yield Statement("LetEbsUseKey", ("kms:CreateGrant",), (key,), grants)
            yield Statement("ReadKey", ("kms:DescribeKey",), (key,), condition)
