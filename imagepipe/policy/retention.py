"""The permissions of retention: find out what uses images, and retire the spec's own."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe.iam.document import Conditions, Statement
from imagepipe.policy import storage
from imagepipe.policy.context import KEPT, STATE, PolicyContext

DISABLED = "imagepipe:disabled"
"""Tag key, the same as in `cloud.tags`; a test compares them."""
READS = (
    "ec2:DescribeImages",
    "ec2:DescribeSnapshots",
    "ec2:DescribeImageReferences",
    "ec2:DescribeImageUsageReports",
    "ec2:DescribeImageUsageReportEntries",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeLaunchTemplateVersions",
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeLaunchConfigurations",
    "imagebuilder:ListImageRecipes",
    "imagebuilder:ListContainerRecipes",
    "ssm:DescribeParameters",
    "imagebuilder:GetContainerRecipe",
    "ssm:GetParameters",
    "rbin:ListRules",
)
"""Actions on `*`. DescribeImageReferences needs those of the services that it looks at, for all of their resources."""


def retire_in_spec_regions(context: PolicyContext) -> Iterator[Statement]:
    """Allow a build to retire older images, in the spec's regions."""
    regions = {"StringEquals": {"aws:RequestedRegion": context.everywhere}}
    yield Statement("ReadUses", READS, ("*",), regions)
    for region in context.everywhere:
        yield from _in_region(context, region)
    yield from _bundles(context)


def prune(context: PolicyContext) -> Iterator[Statement]:
    """Allow `images prune`, in every region: the spec may have had other regions before."""
    yield Statement("ReadUses", (*READS, "ec2:DescribeRegions"), ("*",))
    yield from _in_region(context, "*")
    yield from _bundles(context)


def _in_region(context: PolicyContext, region: str) -> Iterator[Statement]:
    aws = f"arn:{context.partition}"
    image, snapshot = f"{aws}:ec2:{region}::image/*", f"{aws}:ec2:{region}::snapshot/*"
    report = f"{aws}:ec2:{region}:*:image-usage-report/*"
    kept: Conditions = context.ours(**{STATE: KEPT})
    yield Statement("ReadRules", ("rbin:GetRule",), (f"{aws}:rbin:{region}:*:rule/*",))
    yield Statement("RetireOurs", ("ec2:DescribeImageAttribute", "ec2:CreateImageUsageReport"), (image,), kept)
    yield Statement("UseReports", ("ec2:CreateImageUsageReport", "ec2:DeleteImageUsageReport"), (report,))
    steps = ("ec2:EnableImageDeprecation", "ec2:DisableImage", "ec2:DeregisterImage")
    yield Statement("RetireOurs", steps, (image,), kept)
    yield Statement("RetireOurs", ("ec2:DeleteSnapshot",), (snapshot,), kept)
    keys: Conditions = {**kept, "ForAllValues:StringEquals": {"aws:TagKeys": (DISABLED,)}}
    yield Statement("TagRetired", ("ec2:CreateTags",), (image,), keys)


def _bundles(context: PolicyContext) -> Iterator[Statement]:
    if context.bundles:
        yield from storage.gets(context)
        yield from storage.deletes(context)
