"""The permissions of each stage, as statements: one function for each class of stage.

`stages_of` lists the stages of a spec's graph. A test compares both with the graphs that `pipeline` makes, so a
missing stage is a failure. Further tests build on the local cloud under these policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from imagepipe import render
from imagepipe.iam.document import Statement
from imagepipe.iam.facts import arn
from imagepipe.policy import retention, storage
from imagepipe.policy.context import EXPIRES, OWN_ACCOUNT, SPEC, STATE, PolicyContext
from imagepipe.policy.launch import launches, passes_role
from imagepipe.spec.models import AmiBySsm, Spec, SubnetsByTags
from imagepipe.spec.scalars import NEVER, ssm_parameter_arn

StatementBuilder = Callable[[PolicyContext], Iterator[Statement]]


def no_calls(context: PolicyContext) -> Iterator[Statement]:
    """Yield no statements, for stages that make no calls."""
    yield from ()


def find_source(context: PolicyContext) -> Iterator[Statement]:
    devices = (*context.spec.launch.block_devices, *(context.ebs.block_devices if context.ebs else ()))
    names_snapshots = any(device.snapshot for device in devices)
    yield from context.reads("DescribeImages", *(["DescribeSnapshots"] if names_snapshots else []))
    if isinstance(ami := context.spec.source.ami, AmiBySsm):
        parameter = ssm_parameter_arn(ami.ssm, context.partition, context.home)
        yield Statement("ReadParameter", ("ssm:GetParameter",), (parameter,))


def check_names(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeImages")


def check_types(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeInstanceTypes")


def check_bucket(context: PolicyContext) -> Iterator[Statement]:
    yield from storage.lists(context)
    yield from storage.settings(context)
    yield from storage.puts(context)
    yield from storage.deletes(context)


def check_public(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("GetImageBlockPublicAccessState")


def check_keys(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("GetEbsEncryptionByDefault", "GetEbsDefaultKmsKeyId", "DescribeImages")


def make_key(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeKeyPairs")
    yield from context.makes("MakeOurs", "ImportKeyPair", *context.here("key-pair"))


def make_group(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads(
        "DescribeSecurityGroups", "DescribeSubnets" if context.spec.launch.subnets else "DescribeVpcs"
    )
    yield from context.makes("MakeOurs", "CreateSecurityGroup", *context.here("security-group"))
    yield Statement("InNetwork", ("ec2:CreateSecurityGroup",), context.here("vpc"))
    yield _on_ours(context, "AuthorizeSecurityGroupIngress", "security-group")


def use_groups(context: PolicyContext) -> Iterator[Statement]:
    if any(isinstance(subnet, SubnetsByTags) for subnet in context.spec.launch.subnets):
        yield from context.reads("DescribeSubnets")


def launch(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeInstances")
    yield from launches(context)
    yield from passes_role(context)
    yield from storage.encrypts(context, _keys_at_launch(context))
    if volumes := {key for volume in context.spec.launch.block_devices for key in volume.tags}:
        yield _tags_ours(context, "TagVolumes", context.here("volume"), *volumes)


def _keys_at_launch(context: PolicyContext) -> dict[str, set[str]]:
    own = {volume.kms_key for volume in context.spec.launch.block_devices if volume.kms_key}
    if context.ebs and context.ebs.encrypt and context.ebs.encrypt.kms_key:
        own.add(context.ebs.encrypt.kms_key)
    return {context.home: own}


def await_ssh(context: PolicyContext) -> Iterator[Statement]:
    """Also allow the calls that explain why SSH cannot reach an instance."""
    yield from context.reads("DescribeInstances", "DescribeInstanceStatus", "DescribeRouteTables")
    yield _on_ours(context, "GetConsoleOutput", "instance")


def reaches_machine(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeInstances")


def stop(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeInstances")
    yield _on_ours(context, "StopInstances", "instance")


def capture_ebs(context: PolicyContext) -> Iterator[Statement]:
    """Also allow CreateImage, which is used if the source image has product codes or special billing."""
    yield from context.reads("DescribeInstances", "DescribeVolumes", "DescribeSnapshots", "DescribeImages")
    yield _on_ours(context, "CreateSnapshots", "instance", "volume")
    yield from context.makes("MakeOurs", "CreateSnapshots", *context.here("snapshot"))
    yield from context.makes("MakeOurs", "RegisterImage", *context.here("image"))
    yield Statement("RegisterOurs", ("ec2:RegisterImage",), context.here("snapshot"), context.ours())
    if named := _named_snapshots(context):
        yield Statement("RegisterNamed", ("ec2:RegisterImage",), named)
    yield from context.makes("MakeOurs", "CreateImage", *context.here("image", "snapshot"))
    yield _on_ours(context, "CreateImage", "instance")
    if context.spec.output.imds_support == "v2.0":
        yield Statement("ChangeOurImages", ("ec2:ModifyImageAttribute",), context.here("image"), context.ours())
    if context.spec.output.boot_mode != "legacy-bios":
        yield _on_ours(context, "GetInstanceUefiData", "instance")
    if tags := {key for device in context.spec.output.block_devices for key in device.tags}:
        yield _tags_ours(context, "TagSnapshots", context.here("snapshot"), *tags)


def _named_snapshots(context: PolicyContext) -> tuple[str, ...]:
    devices = context.spec.output.block_devices
    return tuple(arn(context.home, "snapshot", device.snapshot) for device in devices if device.snapshot)


def terminate_instance(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeInstances")
    yield _on_ours(context, "TerminateInstances", "instance")


def bundle_root(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeInstances")
    yield from storage.puts(context)
    yield from storage.gets(context)
    yield from storage.lists(context)
    yield from storage.deletes(context)


def register_bundle(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeImages")
    yield from context.makes("MakeOurs", "RegisterImage", *context.here("image"))


def use_image(context: PolicyContext) -> Iterator[Statement]:
    """Allow launching the new image for its test; a build that may launch all public images needs no more."""
    yield from context.reads("DescribeImages")
    if not isinstance(context.spec.source.ami, AmiBySsm):
        yield Statement("TestOurs", ("ec2:RunInstances",), context.here("image"), context.ours())


def copy_to_region(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeImages")
    yield from context.makes("CopyToRegions", "CopyImage", *context.in_copies("image", "snapshot"))
    yield _copies_from(context.here("image"))
    encrypt = context.ebs.encrypt if context.ebs else None
    if encrypt and (keys := {region: {each.kms_key} for region, each in encrypt.per_region.items()}):
        yield from storage.encrypts(context, {region: keys[region] for region in context.copies if region in keys})


def _copies_from(images: tuple[str, ...]) -> Statement:
    """Allow copies from these images; EC2 has no condition on the tags of the source image."""
    return Statement("CopyFrom", ("ec2:CopyImage",), images, {"StringEquals": {"ec2:Owner": (OWN_ACCOUNT,)}})


def copy_bundle_to_region(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeImages")
    yield from storage.gets(context)
    yield from storage.puts(context)
    yield from context.makes("RegisterInRegions", "RegisterImage", *context.in_copies("image"))


def share_image(context: PolicyContext) -> Iterator[Statement]:
    # An existing image that is shared already is left alone.
    yield Statement("ReadPermissions", ("ec2:DescribeImageAttribute",), context.all("image"), context.ours())
    yield Statement("ChangeOurImages", ("ec2:ModifyImageAttribute",), context.all("image"), context.ours())
    if context.ebs and (accounts := context.spec.publish.share.accounts):
        yield Statement("ReadPermissions", ("ec2:DescribeSnapshotAttribute",), context.all("snapshot"), context.ours())
        condition = {
            **context.ours(),
            "ForAllValues:StringEquals": {"ec2:Add/userId": accounts},
            "Null": {"ec2:Add/userId": ("false",)},
        }
        yield Statement("ShareSnapshots", ("ec2:ModifySnapshotAttribute",), context.all("snapshot"), condition)


def revoke_grants(context: PolicyContext) -> Iterator[Statement]:
    yield Statement("ReadPermissions", ("ec2:DescribeImageAttribute",), context.all("image"), context.ours())
    yield Statement("ChangeOurImages", ("ec2:ModifyImageAttribute",), context.all("image"), context.ours())
    if context.ebs:
        yield Statement("ReadPermissions", ("ec2:DescribeSnapshotAttribute",), context.all("snapshot"), context.ours())
        condition = {**context.ours(), "Null": {"ec2:Add/userId": ("true",), "ec2:Add/group": ("true",)}}
        yield Statement("RevokeSnapshots", ("ec2:ModifySnapshotAttribute",), context.all("snapshot"), condition)


def _changes_ours(context: PolicyContext, action: str) -> Iterator[Statement]:
    yield from context.reads("DescribeImages")
    yield Statement("ChangeOurImages", (f"ec2:{action}",), context.all("image"), context.ours())


def deprecate_image(context: PolicyContext) -> Iterator[Statement]:
    yield from _changes_ours(context, "EnableImageDeprecation")


def remove_deprecation(context: PolicyContext) -> Iterator[Statement]:
    yield from _changes_ours(context, "DisableImageDeprecation")


def protect_image(context: PolicyContext) -> Iterator[Statement]:
    yield from _changes_ours(context, "EnableImageDeregistrationProtection")


def remove_protection(context: PolicyContext) -> Iterator[Statement]:
    yield from _changes_ours(context, "DisableImageDeregistrationProtection")


def tag_image(context: PolicyContext) -> Iterator[Statement]:
    """Allow tags with the spec's own keys, on images that exist already."""
    resources = context.all("image", *(["snapshot"] if context.ebs else []))
    yield _tags_ours(context, "RetagOurs", resources, *context.spec.output.tags)


def check_templates(context: PolicyContext) -> Iterator[Statement]:
    yield from context.reads("DescribeLaunchTemplateVersions")


def update_template(context: PolicyContext) -> Iterator[Statement]:
    """Allow new versions of the templates that the spec names; a template's ARN has its id, but not its name."""
    yield from check_templates(context)
    actions = ("ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate")
    templates = context.spec.publish.launch_templates
    resources = [
        arn(region, "launch-template", template.id or "*")
        for region in context.everywhere
        for template in templates
        if region == template.region or (template.region is None and (template.name or region == context.home))
    ]
    yield Statement("UpdateTemplates", actions, tuple(dict.fromkeys(resources)))


def check_parameter(context: PolicyContext) -> Iterator[Statement]:
    yield Statement("ReadParameter", ("ssm:GetParameter", "ssm:ListTagsForResource"), _own_parameters(context))


def write_parameter(context: PolicyContext) -> Iterator[Statement]:
    """Systems Manager also checks the image in the caller's name (its user guide, "Native parameter support")."""
    yield from context.reads("DescribeImages")
    yield from check_parameter(context)
    yield Statement("WriteParameter", ("ssm:PutParameter", "ssm:AddTagsToResource"), _own_parameters(context))


def _own_parameters(context: PolicyContext) -> tuple[str, ...]:
    """Return the ARNs of the parameter that names the spec's image, in each region."""
    text = context.spec.publish.ssm_parameter
    names = {region: render.render_late(text or "", {"region": region}) for region in context.everywhere}
    return tuple(ssm_parameter_arn(name, context.partition, region) for region, name in names.items())


def keep(context: PolicyContext) -> Iterator[Statement]:
    yield _tags_ours(context, "TagOurs", context.all("image", *(["snapshot"] if context.ebs else [])), STATE)


def replace_image(context: PolicyContext) -> Iterator[Statement]:
    """Allow retiring the old image and registering the new one again under its name."""
    yield from context.reads("DescribeImages")
    yield Statement("EndOurs", ("ec2:DeregisterImage",), context.all("image"), context.endable())
    yield from context.makes("RegisterInRegions", "RegisterImage", *context.in_copies("image"))
    if context.bundles:
        yield from storage.gets(context)
        yield from storage.deletes(context)
        return
    yield Statement("RegisterOurs", ("ec2:RegisterImage",), context.all("snapshot"), context.ours())
    yield Statement("EndOurs", ("ec2:DeleteSnapshot",), context.all("snapshot"), context.endable())
    yield Statement("ChangeOurImages", ("ec2:DescribeImageAttribute",), context.all("image"), context.ours())
    # Images with product codes or special billing are copied within the region: RegisterImage would lose those.
    yield from context.makes("CopyToRegions", "CopyImage", *context.all("image", "snapshot"))
    yield _copies_from(context.all("image"))


def heartbeat(context: PolicyContext) -> Iterator[Statement]:
    """Allow renewing the expiry tag of a long run's resources."""
    kinds = ["instance"]
    kinds += [] if context.spec.launch.ssh.key_pair else ["key-pair"]
    kinds += [] if context.spec.launch.security_groups else ["security-group"]
    yield _tags_ours(context, "TagOurs", context.here(*kinds), EXPIRES)
    yield from heartbeat_of_images(context)


def heartbeat_of_images(context: PolicyContext) -> Iterator[Statement]:
    yield _tags_ours(context, "TagOurs", context.all("image", *(["snapshot"] if context.ebs else [])), EXPIRES)


def _on_ours(context: PolicyContext, action: str, *kinds: str) -> Statement:
    return Statement("WorkOnOurs", (f"ec2:{action}",), context.here(*kinds), context.ours())


def _tags_ours(context: PolicyContext, sid: str, resources: tuple[str, ...], *keys: str) -> Statement:
    """Allow tags with these keys only; otherwise the caller could take over other resources."""
    condition = {**context.ours(), "ForAllValues:StringEquals": {"aws:TagKeys": tuple(sorted(keys))}}
    assert SPEC not in keys
    return Statement(sid, ("ec2:CreateTags",), resources, condition)


STAGES: Mapping[str, StatementBuilder] = {
    "FindSource": find_source,
    "FindBase": find_source,
    "RecordInputs": no_calls,
    "NameImages": no_calls,
    "CheckNames": check_names,
    "CheckTypes": check_types,
    "CheckBucket": check_bucket,
    "CheckPublic": check_public,
    "CheckKeys": check_keys,
    "MakeKey": make_key,
    "UseKey": no_calls,
    "MakeGroup": make_group,
    "UseGroups": use_groups,
    "Launch": launch,
    "AwaitSsh": await_ssh,
    "Scrub": reaches_machine,
    "Stop": stop,
    "CaptureEbs": capture_ebs,
    "TerminateInstance": terminate_instance,
    "BundleRoot": bundle_root,
    "RegisterBundle": register_bundle,
    "UseImage": use_image,
    "CheckNewInstance": reaches_machine,
    "PublishGate": no_calls,
    "CopyToRegion": copy_to_region,
    "CopyBundleToRegion": copy_bundle_to_region,
    "ShareImage": share_image,
    "DeprecateImage": deprecate_image,
    "ProtectImage": protect_image,
    "CheckTemplates": check_templates,
    "UpdateTemplate": update_template,
    "CheckParameter": check_parameter,
    "WriteParameter": write_parameter,
    "Keep": keep,
    "ReplaceImage": replace_image,
    "CollectImages": no_calls,
    "RetireImages": retention.retire_in_spec_regions,
}
PUBLISHING: Mapping[str, StatementBuilder] = {
    "UseExisting": check_names,
    "RevokeGrants": revoke_grants,
    "RemoveDeprecation": remove_deprecation,
    "RemoveProtection": remove_protection,
    "TagImage": tag_image,
}
"""Further stages of `imagepipe publish`, which changes images that exist already."""
STEPS: Mapping[str, StatementBuilder] = dict.fromkeys(
    ("RunShell", "UploadFile", "RenderTemplate", "RebootMachine"), reaches_machine
)


def stages_of(context: PolicyContext) -> Iterator[str]:
    """Yield the classes of the stages in the spec's graph, each once, in the order of the recipe, without steps."""
    spec = context.spec
    share = spec.publish.share
    yield "FindBase" if spec.source.image else "FindSource"
    yield from ("RecordInputs", "NameImages", "CheckNames")
    if context.bundles:
        yield from ("CheckTypes", "CheckBucket")
    if share.public:
        yield "CheckPublic"
    is_shared = bool(share.accounts or share.organizations or share.ous or share.public)
    if is_shared and context.ebs:
        yield "CheckKeys"
    if spec.publish.ssm_parameter is not None:
        yield "CheckParameter"
    if spec.publish.launch_templates:
        yield "CheckTemplates"
    yield "UseKey" if spec.launch.ssh.key_pair else "MakeKey"
    yield "UseGroups" if spec.launch.security_groups else "MakeGroup"
    yield from ("Launch", "AwaitSsh")
    yield from ("BundleRoot", "RegisterBundle") if context.bundles else ("Scrub", "Stop", "CaptureEbs")
    yield "TerminateInstance"
    if spec.test:
        yield from ("UseImage", "CheckNewInstance", "PublishGate")
    if context.copies:
        yield "CopyBundleToRegion" if context.bundles else "CopyToRegion"
    yield from _attributes_of(spec)
    yield "Keep"
    if context.replaces:
        yield "ReplaceImage"
    yield "CollectImages"
    if spec.retention:
        yield "RetireImages"


def _attributes_of(spec: Spec) -> Iterator[str]:
    publish, share = spec.publish, spec.publish.share
    if share.accounts or share.organizations or share.ous or share.public:
        yield "ShareImage"
    if publish.deprecate_after:
        yield "DeprecateImage"
    if publish.deregistration_protection:
        yield "ProtectImage"
    if publish.launch_templates:
        yield "UpdateTemplate"
    if publish.ssm_parameter is not None:
        yield "WriteParameter"


def reusing_stages_of(context: PolicyContext) -> Iterator[str]:
    """Yield the further classes of stages of a build that publishes an existing image, because nothing has changed."""
    if context.spec.output.tags:
        yield "TagImage"


def publishing_stages_of(context: PolicyContext) -> Iterator[str]:
    """Yield the classes of the stages that `imagepipe publish` may need for a spec, each once."""
    spec, publish = context.spec, context.spec.publish
    yield from ("UseExisting", "CheckNames")
    if publish.share.public:
        yield "CheckPublic"
    if context.bundles:
        yield from ("CheckTypes", "CheckBucket")
    elif any(each == "ShareImage" for each in _attributes_of(spec)):
        yield "CheckKeys"
    if publish.ssm_parameter is not None:
        yield "CheckParameter"
    if publish.launch_templates:
        yield "CheckTemplates"
    if context.copies:
        yield from ("CopyBundleToRegion" if context.bundles else "CopyToRegion", "Keep")
    yield "RevokeGrants"
    if publish.deprecate_after == NEVER:
        yield "RemoveDeprecation"
    if publish.deregistration_protection is False:
        yield "RemoveProtection"
    if spec.output.tags:
        yield "TagImage"
    yield from _attributes_of(spec)
