"""The permissions of a clean-up: deleting each kind of claim (`cleanup.undoers`), and finding leftovers by tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imagepipe.iam.document import Statement
from imagepipe.policy import storage
from imagepipe.policy.context import PolicyContext
from imagepipe.policy.stages import StatementBuilder, terminate_instance


def instance(context: PolicyContext) -> Iterator[Statement]:
    yield from terminate_instance(context)


def key_pair(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeKeyPairs")
    yield Statement("WorkOnOurs", ("ec2:DeleteKeyPair",), context.here("key-pair"), context.ours())


def security_group(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeSecurityGroups")
    yield Statement("WorkOnOurs", ("ec2:DeleteSecurityGroup",), context.here("security-group"), context.ours())


def image(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeImages")
    yield Statement("EndOurs", ("ec2:DeregisterImage",), context.all("image"), context.endable())


def snapshots(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeSnapshots")
    yield Statement("EndOurs", ("ec2:DeleteSnapshot",), context.all("snapshot"), context.endable())


def bundle(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeImages")
    yield from storage.lists(context)
    yield from storage.deletes(context)


UNDO: Mapping[str, StatementBuilder] = {
    "instance": instance,
    "key-pair": key_pair,
    "security-group": security_group,
    "image": image,
    "snapshots": snapshots,
    "bundle": bundle,
}


def kinds_of(context: PolicyContext) -> Iterator[str]:
    """Return the kinds of claims that a run of the spec makes."""
    yield "instance"
    if not context.spec.launch.ssh.key_pair:
        yield "key-pair"
    if not context.spec.launch.security_groups:
        yield "security-group"
    yield from kinds_of_images(context)


def kinds_of_images(context: PolicyContext) -> Iterator[str]:
    """Return the kinds of claims on images and their data."""
    yield "image"
    yield "bundle" if context.bundles else "snapshots"


def sweep(context: PolicyContext) -> Iterator[Statement]:
    """Allow `clean --older-than`: find our resources in the spec's regions, and in whole buckets."""
    looks = ("Instances", "Images", "Snapshots", "SecurityGroups", "KeyPairs", "Regions")
    yield from context.reads(*(f"Describe{each}" for each in looks))
    yield from storage.lists_all(context)
