"""Permissions of RunInstances: EC2 checks each resource that a launch creates or uses separately."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import assert_never

from imagepipe.iam.document import Conditions, Statement
from imagepipe.iam.facts import arn
from imagepipe.policy.context import OWN_ACCOUNT, SPEC, PolicyContext
from imagepipe.spec.keys import parse_key
from imagepipe.spec.models import AmiByFilter, AmiById, AmiBySsm, BlockDevice, SubnetsByTags

RUN = ("ec2:RunInstances",)


def launches(context: PolicyContext) -> Iterator[Statement]:
    """Allow the launch: the instance, its image, network, key pair and volumes."""
    yield from _source(context)
    yield _instance(context)
    # A source image without EBS has no volume; then this permission is not used.
    if _encrypts(context):
        condition = {**context.new(), "Bool": {"ec2:Encrypted": ("true",)}}
        yield Statement("MakeEncrypted", RUN, context.here("volume"), condition)
    else:
        yield Statement("MakeOurs", RUN, context.here("volume"), context.new())
    yield from context.tagged_on_create("RunInstances", *context.here("instance", "volume"))
    yield Statement("InNetwork", RUN, (*context.here("network-interface"), *_named_subnets(context)))
    yield from _tagged_subnets(context)
    yield from _access(context)


def _encrypts(context: PolicyContext) -> bool:
    """Return whether every volume of the launch is encrypted, and of the test launch too."""
    volumes = context.spec.launch.block_devices
    launched = {volume.device for volume in volumes}
    tested = context.spec.output.block_devices if context.spec.test else ()
    return (
        bool(context.ebs and context.ebs.encrypt)
        and all(volume.encrypted is not False for volume in volumes)
        and not any(_may_be_plain(volume, launched) for volume in tested)
    )


def _may_be_plain(volume: BlockDevice, launched: Collection[str]) -> bool:
    """Return whether the image gets a further volume that need not be encrypted."""
    if volume.virtual_name or volume.no_device:
        return False
    if volume.snapshot:  # the snapshot decides about encryption, not the spec
        return True
    return bool(volume.size_gib) and volume.device not in launched and not (volume.encrypted or volume.kms_key)


def _source(context: PolicyContext) -> Iterator[Statement]:
    condition: Conditions = {}
    image = arn(context.home, "image")
    match context.spec.source.ami:
        case AmiById(id=id):
            image = arn(context.home, "image", id)
        case AmiByFilter(owners=owners):
            condition = {
                "StringEquals": {"ec2:Owner": tuple(sorted({name for each in owners for name in _owner(each)}))}
            }
        case AmiBySsm():
            pass  # the owner of the parameter's image is only known at run time
        case None:
            base = parse_key(context.spec.source.image or "")
            condition = {"StringEquals": {f"aws:ResourceTag/{SPEC}": (base.name if base else "",)}}
        case _:
            assert_never(context.spec.source.ami)
    yield Statement("LaunchFromSource", RUN, (image,), condition)
    volumes = context.spec.launch.block_devices
    if named := tuple(arn(context.home, "snapshot", volume.snapshot) for volume in volumes if volume.snapshot):
        yield Statement("LaunchFromSnapshots", RUN, named)


def _owner(word: str) -> tuple[str, ...]:
    """Return IAM's name of an image owner: Amazon and verified owners are `amazon`, not a number."""
    if word == "self":
        return (OWN_ACCOUNT,)
    return (word, "amazon") if word.isdigit() else (word,)


def _instance(context: PolicyContext) -> Statement:
    launch = context.spec.launch
    wanted = {"ec2:InstanceType": launch.instance_types, "ec2:MetadataHttpTokens": ("required",)}
    condition = context.new(wanted)
    if profile := launch.iam_instance_profile:
        pattern = (
            profile if profile.startswith("arn:") else f"arn:{context.partition}:iam::*:instance-profile/{profile}"
        )
        condition = {**condition, "ArnLike": {"ec2:InstanceProfile": (pattern,)}}
    return Statement("LaunchInstances", RUN, context.here("instance"), condition)


def _named_subnets(context: PolicyContext) -> tuple[str, ...]:
    """Return the ARNs of subnets that the spec names by id; of any subnet if it uses the default VPC."""
    subnets = context.spec.launch.subnets
    named = tuple(arn(context.home, "subnet", subnet) for subnet in subnets if isinstance(subnet, str))
    return named if subnets else context.here("subnet")


def _tagged_subnets(context: PolicyContext) -> Iterator[Statement]:
    """Allow launches into subnets with the spec's tags; `*` and `?` mean the same as in EC2's filters."""
    for subnet in context.spec.launch.subnets:
        if isinstance(subnet, SubnetsByTags):
            tags = {f"aws:ResourceTag/{key}": (value,) for key, value in subnet.tags.items()}
            yield Statement("InSubnets", RUN, context.here("subnet"), {"StringLike": tags})


def _access(context: PolicyContext) -> Iterator[Statement]:
    """Allow the account's own key pair and groups by name; otherwise those that the run creates."""
    launch = context.spec.launch
    if launch.ssh.key_pair:
        yield Statement("InNetwork", RUN, (arn(context.home, "key-pair", launch.ssh.key_pair),))
    if launch.security_groups:
        yield Statement(
            "InNetwork", RUN, tuple(arn(context.home, "security-group", id) for id in launch.security_groups)
        )
    kinds = [] if launch.ssh.key_pair else ["key-pair"]
    kinds += [] if launch.security_groups else ["security-group"]
    if kinds:
        yield Statement("WorkOnOurs", RUN, context.here(*kinds), context.ours())


def passes_role(context: PolicyContext) -> Iterator[Statement]:
    """Allow passing the instance profile's role to EC2. The console gives profile and role the same name."""
    profile = context.spec.launch.iam_instance_profile
    if profile is None:
        return
    role = context.role or profile.rpartition("/")[2]
    account = profile.split(":")[4] if profile.startswith("arn:") else "*"
    service = "ec2.amazonaws.com.cn" if context.home.startswith("cn-") else "ec2.amazonaws.com"
    resource = f"arn:{context.partition}:iam::{account}:role/{role}"
    yield Statement("PassRole", ("iam:PassRole",), (resource,), {"StringEquals": {"iam:PassedToService": (service,)}})
