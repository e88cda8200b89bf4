"""What each stage asks of AWS, as statements: one function for each class of stage, by its name.

`stages_of` says which of them a spec's graph has. A test holds both against the graphs that `pipeline` makes, so that a
stage that is missing here is a failure; builds under these policies, on the local cloud, hold each to its stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from imagepipe.iam.document import Statement
from imagepipe.iam.facts import arn
from imagepipe.policy import storage
from imagepipe.policy.context import EXPIRES, OWN_ACCOUNT, SPEC, STATE, PolicyContext
from imagepipe.policy.launch import launches, passes_role
from imagepipe.spec.models import AmiBySsm, SubnetsByTags

Asks = Callable[[PolicyContext], Iterator[Statement]]


def nothing(need: PolicyContext) -> Iterator[Statement]:
    """Of AWS, that is."""
    yield from ()


def find_source(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeImages")
    if isinstance(ami := need.spec.source.ami, AmiBySsm):
        parameter = f"arn:{need.partition}:ssm:{need.home}:*:parameter/{ami.ssm.removeprefix('/')}"
        yield Statement("ReadParameter", ("ssm:GetParameter",), (parameter,))


def check_names(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeImages")


def check_types(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeInstanceTypes")


def check_bucket(need: PolicyContext) -> Iterator[Statement]:
    yield from storage.lists(need)
    yield from storage.settings(need)
    yield from storage.puts(need)
    yield from storage.deletes(need)


def check_public(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("GetImageBlockPublicAccessState")


def make_key(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeKeyPairs")
    yield from need.makes("MakeOurs", "ImportKeyPair", *need.here("key-pair"))


def make_group(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeSecurityGroups", "DescribeSubnets" if need.spec.launch.subnets else "DescribeVpcs")
    yield from need.makes("MakeOurs", "CreateSecurityGroup", *need.here("security-group"))
    yield Statement("InNetwork", ("ec2:CreateSecurityGroup",), need.here("vpc"))
    yield _on_ours(need, "AuthorizeSecurityGroupIngress", "security-group")


def use_groups(need: PolicyContext) -> Iterator[Statement]:
    if any(isinstance(subnet, SubnetsByTags) for subnet in need.spec.launch.subnets):
        yield from need.reads("DescribeSubnets")


def launch(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeInstances")
    yield from launches(need)
    yield from passes_role(need)
    yield from storage.encrypts(need, _keys_at_launch(need))
    if volumes := {key for volume in need.spec.launch.block_devices for key in volume.tags}:
        yield _tags_ours(need, "TagVolumes", need.here("volume"), *volumes)


def _keys_at_launch(need: PolicyContext) -> dict[str, set[str]]:
    own = {volume.kms_key for volume in need.spec.launch.block_devices if volume.kms_key}
    if need.ebs and need.ebs.encrypt and need.ebs.encrypt.kms_key:
        own.add(need.ebs.encrypt.kms_key)
    return {need.home: own}


def await_ssh(need: PolicyContext) -> Iterator[Statement]:
    """What EC2 knows of an instance that SSH does not reach, too."""
    yield from need.reads("DescribeInstances", "DescribeInstanceStatus", "DescribeRouteTables")
    yield _on_ours(need, "GetConsoleOutput", "instance")


def look_at_machine(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeInstances")


def stop(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeInstances")
    yield _on_ours(need, "StopInstances", "instance")


def capture_ebs(need: PolicyContext) -> Iterator[Statement]:
    """Also by CreateImage, which only the source image decides: where it is sold, or billed as more than Linux."""
    yield from need.reads("DescribeInstances", "DescribeVolumes", "DescribeSnapshots", "DescribeImages")
    yield _on_ours(need, "CreateSnapshots", "instance", "volume")
    yield from need.makes("MakeOurs", "CreateSnapshots", *need.here("snapshot"))
    yield from need.makes("MakeOurs", "RegisterImage", *need.here("image"))
    yield Statement("RegisterOurs", ("ec2:RegisterImage",), need.here("snapshot"), need.ours())
    if named := _named_snapshots(need):
        yield Statement("RegisterNamed", ("ec2:RegisterImage",), named)
    yield from need.makes("MakeOurs", "CreateImage", *need.here("image", "snapshot"))
    yield _on_ours(need, "CreateImage", "instance")
    if need.spec.output.imds_support == "v2.0":
        yield Statement("ChangeOurImages", ("ec2:ModifyImageAttribute",), need.here("image"), need.ours())
    if need.spec.output.boot_mode != "legacy-bios":
        yield _on_ours(need, "GetInstanceUefiData", "instance")
    if tags := {key for device in need.spec.output.block_devices for key in device.tags}:
        yield _tags_ours(need, "TagSnapshots", need.here("snapshot"), *tags)


def _named_snapshots(need: PolicyContext) -> tuple[str, ...]:
    devices = need.spec.output.block_devices
    return tuple(arn(need.home, "snapshot", device.snapshot) for device in devices if device.snapshot)


def clean_up(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeInstances")
    yield _on_ours(need, "TerminateInstances", "instance")


def bundle_root(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeInstances")
    yield from storage.puts(need)
    yield from storage.gets(need)
    yield from storage.lists(need)
    yield from storage.deletes(need)


def register_bundle(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeImages")
    yield from need.makes("MakeOurs", "RegisterImage", *need.here("image"))


def new_image(need: PolicyContext) -> Iterator[Statement]:
    """Looked up, and launched for its test; whoever may launch all public images may launch this one too."""
    yield from need.reads("DescribeImages")
    if not isinstance(need.spec.source.ami, AmiBySsm):
        yield Statement("TestOurs", ("ec2:RunInstances",), need.here("image"), need.ours())


def copy_to_region(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeImages")
    yield from need.makes("CopyToRegions", "CopyImage", *need.in_copies("image", "snapshot"))
    yield _copies_from(need.here("image"))
    encrypt = need.ebs.encrypt if need.ebs else None
    if encrypt and (keys := {region: {each.kms_key} for region, each in encrypt.per_region.items()}):
        yield from storage.encrypts(need, {region: keys[region] for region in need.copies if region in keys})


def _copies_from(images: tuple[str, ...]) -> Statement:
    """EC2 has no conditions on the tags of the image that is copied."""
    return Statement("CopyFrom", ("ec2:CopyImage",), images, {"StringEquals": {"ec2:Owner": (OWN_ACCOUNT,)}})


def copy_bundle_to_region(need: PolicyContext) -> Iterator[Statement]:
    yield from need.reads("DescribeImages")
    yield from storage.gets(need)
    yield from storage.puts(need)
    yield from need.makes("RegisterInRegions", "RegisterImage", *need.in_copies("image"))


def share_image(need: PolicyContext) -> Iterator[Statement]:
    yield Statement("ChangeOurImages", ("ec2:ModifyImageAttribute",), need.all("image"), need.ours())
    if need.ebs and (accounts := need.spec.publish.share.accounts):
        condition = {
            **need.ours(),
            "ForAllValues:StringEquals": {"ec2:Add/userId": accounts},
            "Null": {"ec2:Add/userId": ("false",)},
        }
        yield Statement("ShareSnapshots", ("ec2:ModifySnapshotAttribute",), need.all("snapshot"), condition)


def keep(need: PolicyContext) -> Iterator[Statement]:
    yield _tags_ours(need, "TagOurs", need.all("image", *(["snapshot"] if need.ebs else [])), STATE)


def take_name(need: PolicyContext) -> Iterator[Statement]:
    """The old image retired, and the new one registered once more under its name."""
    yield from need.reads("DescribeImages")
    yield Statement("EndOurs", ("ec2:DeregisterImage",), need.all("image"), need.endable())
    yield from need.makes("RegisterInRegions", "RegisterImage", *need.in_copies("image"))
    if need.bundles:
        yield from storage.gets(need)
        yield from storage.deletes(need)
        return
    yield Statement("RegisterOurs", ("ec2:RegisterImage",), need.all("snapshot"), need.ours())
    yield Statement("EndOurs", ("ec2:DeleteSnapshot",), need.all("snapshot"), need.endable())
    yield Statement("ChangeOurImages", ("ec2:DescribeImageAttribute",), need.all("image"), need.ours())
    # Of what is sold, or billed as more than Linux, a copy within the region: RegisterImage would lose that.
    yield from need.makes("CopyToRegions", "CopyImage", *need.all("image", "snapshot"))
    yield _copies_from(need.all("image"))


def answers_for(need: PolicyContext) -> Iterator[Statement]:
    """A run that goes on for long says on what it holds that it lives."""
    kinds = ["instance"]
    kinds += [] if need.spec.launch.ssh.key_pair else ["key-pair"]
    kinds += [] if need.spec.launch.security_groups else ["security-group"]
    yield _tags_ours(need, "TagOurs", need.here(*kinds), EXPIRES)
    yield _tags_ours(need, "TagOurs", need.all("image", *(["snapshot"] if need.ebs else [])), EXPIRES)


def _on_ours(need: PolicyContext, action: str, *kinds: str) -> Statement:
    return Statement("WorkOnOurs", (f"ec2:{action}",), need.here(*kinds), need.ours())


def _tags_ours(need: PolicyContext, sid: str, resources: tuple[str, ...], *keys: str) -> Statement:
    """Tags of these keys alone, or anything could be made ours, and ours anybody's."""
    condition = {**need.ours(), "ForAllValues:StringEquals": {"aws:TagKeys": tuple(sorted(keys))}}
    assert SPEC not in keys
    return Statement(sid, ("ec2:CreateTags",), resources, condition)


STAGES: Mapping[str, Asks] = {
    "FindSource": find_source,
    "NameImages": nothing,
    "CheckNames": check_names,
    "CheckTypes": check_types,
    "CheckBucket": check_bucket,
    "CheckPublic": check_public,
    "MakeKey": make_key,
    "UseKey": nothing,
    "MakeGroup": make_group,
    "UseGroups": use_groups,
    "Launch": launch,
    "AwaitSsh": await_ssh,
    "Scrub": look_at_machine,
    "Stop": stop,
    "CaptureEbs": capture_ebs,
    "TerminateInstance": clean_up,
    "BundleRoot": bundle_root,
    "RegisterBundle": register_bundle,
    "UseImage": new_image,
    "CheckNewInstance": look_at_machine,
    "PublishGate": nothing,
    "CopyToRegion": copy_to_region,
    "CopyBundleToRegion": copy_bundle_to_region,
    "ShareImage": share_image,
    "Keep": keep,
    "ReplaceImage": take_name,
    "CollectImages": nothing,
}
STEPS: Mapping[str, Asks] = dict.fromkeys(
    ("RunShell", "UploadFile", "RenderTemplate", "RebootMachine"), look_at_machine
)


def stages_of(need: PolicyContext) -> Iterator[str]:
    """The classes of the stages of the spec's graph, but for its steps, each once; in the order of the recipe."""
    spec = need.spec
    share = spec.publish.share
    yield from ("FindSource", "NameImages", "CheckNames")
    if need.bundles:
        yield from ("CheckTypes", "CheckBucket")
    if share.public:
        yield "CheckPublic"
    yield "UseKey" if spec.launch.ssh.key_pair else "MakeKey"
    yield "UseGroups" if spec.launch.security_groups else "MakeGroup"
    yield from ("Launch", "AwaitSsh")
    yield from ("BundleRoot", "RegisterBundle") if need.bundles else ("Scrub", "Stop", "CaptureEbs")
    yield "TerminateInstance"
    if spec.test:
        yield from ("UseImage", "CheckNewInstance", "PublishGate")
    if need.copies:
        yield "CopyBundleToRegion" if need.bundles else "CopyToRegion"
    if share.accounts or share.organizations or share.ous or share.public:
        yield "ShareImage"
    yield "Keep"
    if need.replaces:
        yield from ("ReplaceImage", "CollectImages")
