"""The permissions of a clean-up: deleting each kind of claim (`cleanup.undoers`), and finding leftovers by tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imagepipe.iam.document import Statement
from imagepipe.policy import storage
from imagepipe.policy.context import PolicyContext
from imagepipe.policy.stages import Asks, clean_up


def instance(need: PolicyContext) -> Iterator[Statement]:
    yield from clean_up(need)


def key_pair(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeKeyPairs")
    yield Statement("WorkOnOurs", ("ec2:DeleteKeyPair",), need.here("key-pair"), need.ours())


def security_group(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeSecurityGroups")
    yield Statement("WorkOnOurs", ("ec2:DeleteSecurityGroup",), need.here("security-group"), need.ours())


def image(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeImages")
    yield Statement("EndOurs", ("ec2:DeregisterImage",), need.all("image"), need.endable())


def snapshots(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeSnapshots")
    yield Statement("EndOurs", ("ec2:DeleteSnapshot",), need.all("snapshot"), need.endable())


def bundle(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeImages")
    yield from storage.lists(need)
    yield from storage.deletes(need)


UNDO: Mapping[str, Asks] = {
    "instance": instance,
    "key-pair": key_pair,
    "security-group": security_group,
    "image": image,
    "snapshots": snapshots,
    "bundle": bundle,
}


def kinds_of(need: PolicyContext) -> Iterator[str]:
    """The kinds of claims that a run of the spec makes."""
    yield "instance"
    if not need.spec.launch.ssh.key_pair:
        yield "key-pair"
    if not need.spec.launch.security_groups:
        yield "security-group"
    yield "image"
    yield "bundle" if need.bundles else "snapshots"


def sweep(need: PolicyContext) -> Iterator[Statement]:
    """`clean --older-than`: everything of ours is looked for, in every region where none is named.

    In buckets too, as a whole.
    """
    looks = ("Instances", "Images", "Snapshots", "SecurityGroups", "KeyPairs", "Regions")
    yield from need.reads(*(f"Describe{each}" for each in looks))
    yield from storage.lists_all(need)
