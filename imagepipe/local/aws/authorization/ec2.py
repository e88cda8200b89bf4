"""The permissions that a call to EC2 needs: one request to IAM for each resource, with its condition keys.

The types of resources that an action touches, and their condition keys, are in `iam.facts`; here are the values. A new
resource has no id yet: `*` stands for it. Tagging it in the call that creates it takes a second request to IAM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.iam.facts import ACTIONS, ANY
from imagepipe.local.aws.authorization import launches
from imagepipe.local.aws.authorization.other_services import common_context, key_requests, pass_role_request
from imagepipe.local.aws.authorization.resources import (
    Requests,
    creates,
    key_pair_request,
    named_by,
    request,
    requested_tags,
    use_request,
)
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.images import references
from imagepipe.local.aws.ec2.volumes import encryption
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call


def ec2_requests(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """List the permissions that a call needs. Raises AwsError for an action whose permissions are not known."""
    action = f"ec2:{call.action}"
    if call.action in REQUESTS:
        yield from REQUESTS[call.action](backend, call)
    elif call.action.startswith("Describe") or ANY in ACTIONS.get(action, {}):
        yield AuthorizationRequest(action, ANY, common_context(call.account, call.region))
    else:
        raise AwsError(
            "UnauthorizedOperation",
            f"The local cloud does not know what {action} asks of IAM, so no caller with a policy may do it",
            status=403,
        )


def _create_image(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield use_request(backend, call, str(call.params.get("InstanceId")))
    yield from creates(call, "image")
    yield from creates(call, "snapshot")


def _create_snapshots(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    specification = call.params.get("InstanceSpecification", {})
    instance = backend.database.instances.get(str(specification.get("InstanceId")))
    yield use_request(backend, call, str(specification.get("InstanceId")))
    left_out = specification.get("ExcludeDataVolumeIds", [])
    for volume in instance.volumes if instance else ():
        if volume.volume_id not in left_out:
            yield use_request(backend, call, volume.volume_id)
    yield from creates(call, "snapshot")


def _register_image(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from creates(call, "image")
    for mapping in call.params.get("BlockDeviceMappings", []):
        if snapshot := mapping.get("Ebs", {}).get("SnapshotId"):
            yield use_request(backend, call, str(snapshot))


def _copy_image(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for the source image in its own region, and for the resources that are made here."""
    id, region = str(call.params.get("SourceImageId")), str(call.params.get("SourceRegion"))
    source = backend.database.images.get(id)
    values = {"ec2:ImageID": id, **({"ec2:Owner": source.account} if source else {})}
    yield request(call, call.action, "image", id, values, region=region)
    yield from creates(call, "image")
    yield from creates(call, "snapshot") if source is None or source.root_type == "ebs" else ()
    if key := call.params.get("KmsKeyId"):
        yield from key_requests(backend, call, str(key))


def _create_security_group(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from creates(call, "security-group")
    if vpc := call.params.get("VpcId"):
        yield use_request(backend, call, str(vpc))


def _import_key_pair(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from creates(call, "key-pair", str(call.params.get("KeyName")))


def _delete_key_pair(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield key_pair_request(backend, call, call.params.get("KeyName"), call.params.get("KeyPairId"))


def _modify_snapshot(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    changes, operation = call.params.get("CreateVolumePermission", {}), call.params.get("OperationType")
    named: dict[str, tuple[str, ...]] = {}
    for verb in ("Add", "Remove"):
        entries = changes.get(verb, [])
        users = [str(each["UserId"]) for each in entries if "UserId" in each]
        groups = [str(each["Group"]) for each in entries if "Group" in each]
        if operation == verb.lower():
            users += call.params.get("UserIds", [])
            groups += call.params.get("GroupNames", [])
        named |= {f"ec2:{verb}/userId": tuple(users)} if users else {}
        named |= {f"ec2:{verb}/group": tuple(groups)} if groups else {}
    yield use_request(backend, call, str(call.params.get("SnapshotId")), named)


def _create_tags(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    tags = tagging.parse(call.params.get("Tags", []))
    for id in call.params.get("Resources", []):
        yield use_request(backend, call, str(id), requested_tags(tags))


def _create_usage_report(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield use_request(backend, call, str(call.params.get("ImageId")))
    yield from creates(call, "image-usage-report")


def _image_references(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for the check, and to read the resources that it looks at (EC2 user guide, "AMI reference checks")."""
    known = common_context(call.account, call.region)
    yield AuthorizationRequest(f"ec2:{call.action}", ANY, known)
    for name in dict.fromkeys(name for kind in references.requested(call.params) for name in references.READS[kind]):
        yield AuthorizationRequest(name, ANY, known)


def _creating(kind: str) -> Requests:
    """Make the function for an action that only creates a resource of this type."""
    return lambda backend, call: creates(call, kind)


def _groups(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for a security group that the request names by id or by name, and for rules that it names."""
    identifier, name = call.params.get("GroupId"), call.params.get("GroupName")
    if name and not identifier:
        own = backend.database.groups.owned(call.account, call.region)
        identifier = next((group.id for group in own if group.name == name), None)
    yield (
        use_request(backend, call, str(identifier))
        if identifier
        else request(call, call.action, "security-group", "*", {})
    )
    if call.action == "ModifySecurityGroupRules":
        for rule in call.params.get("SecurityGroupRules", []):
            yield use_request(backend, call, str(rule.get("SecurityGroupRuleId")))


def _address(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for an Elastic IP address that the request names by its allocation, its association or itself."""
    params = call.params
    for address in backend.database.addresses.owned(call.account, call.region):
        association = params.get("AssociationId")
        if address.id == params.get("AllocationId") or (association and address.association_id == association):
            yield use_request(backend, call, address.id)
            return
        if address.public_ip == params.get("PublicIp"):
            yield use_request(backend, call, address.id)
            return
    yield request(call, call.action, "elastic-ip", str(params.get("AllocationId") or "*"), {})


def _associate_address(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from _address(backend, call)
    for name in ("InstanceId", "NetworkInterfaceId"):
        if identifier := call.params.get(name):
            yield use_request(backend, call, str(identifier))


def _create_volume(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    params = call.params
    snapshot = backend.database.snapshots.get(str(params.get("SnapshotId")))
    encrypted = bool(
        params.get("Encrypted") or (snapshot and snapshot.encrypted) or encryption.encrypts_by_default(backend, call)
    )
    yield from creates(call, "volume", more={"ec2:Encrypted": str(encrypted).lower()})
    if identifier := params.get("SnapshotId"):
        yield use_request(backend, call, str(identifier))
    if key := params.get("KmsKeyId"):
        yield from key_requests(backend, call, str(key))


def _create_snapshot(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield use_request(backend, call, str(call.params.get("VolumeId")))
    yield from creates(call, "snapshot")


def _copy_snapshot(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    source = backend.database.snapshots.get(str(call.params.get("SourceSnapshotId")))
    encrypted = bool(call.params.get("Encrypted") or (source and source.encrypted))
    yield from creates(call, "snapshot", more={"ec2:Encrypted": str(encrypted).lower()})
    if key := call.params.get("KmsKeyId"):
        yield from key_requests(backend, call, str(key))


def _import_snapshot(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from creates(call, "import-snapshot-task")
    yield request(call, call.action, "snapshot", "*", {})


def _create_nat_gateway(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from creates(call, "natgateway")
    for name in ("SubnetId", "AllocationId"):
        if identifier := call.params.get(name):
            yield use_request(backend, call, str(identifier))


def _create_key_pair(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from creates(call, "key-pair", str(call.params.get("KeyName")))


def _placement_group(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    name = str(call.params.get("GroupName"))
    if call.action == "CreatePlacementGroup":
        yield from creates(call, "placement-group", name)
        return
    for group in backend.database.placement_groups.owned(call.account, call.region):
        if group.name == name:
            yield use_request(backend, call, group.id)
            return
    yield request(call, call.action, "placement-group", name, {})


def _profile(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for the instance whose instance profile changes, and to pass the role of the new one."""
    identifier = call.params.get("InstanceId")
    if association := call.params.get("AssociationId"):
        own = backend.database.instances.owned(call.account, call.region)
        identifier = next((row.id for row in own if row.profile_association == association), None)
    yield (
        request(call, call.action, "instance", "*", {})
        if identifier is None
        else use_request(backend, call, str(identifier))
    )
    profile = call.params.get("IamInstanceProfile", {})
    if named := profile.get("Arn") or profile.get("Name"):
        yield pass_role_request(backend, call, str(named))


def _modify_instance(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield use_request(backend, call, str(call.params.get("InstanceId")))
    for group in call.params.get("Groups", []):
        yield use_request(backend, call, str(group))


def _modify_credits(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    for each in call.params.get("InstanceCreditSpecifications", []):
        yield use_request(backend, call, str(each.get("InstanceId")))


REQUESTS: Mapping[str, Requests] = {
    "CopyImage": _copy_image,
    "CreateImage": _create_image,
    "CreateSecurityGroup": _create_security_group,
    "CreateSnapshots": _create_snapshots,
    "CreateTags": _create_tags,
    "DeleteKeyPair": _delete_key_pair,
    "DeleteSnapshot": named_by("SnapshotId"),
    "DeregisterImage": named_by("ImageId"),
    "DescribeImageAttribute": named_by("ImageId"),
    "DescribeSnapshotAttribute": named_by("SnapshotId"),
    "GetConsoleOutput": named_by("InstanceId"),
    "ImportKeyPair": _import_key_pair,
    "ModifyImageAttribute": named_by("ImageId"),
    "ModifySnapshotAttribute": _modify_snapshot,
    "RegisterImage": _register_image,
    "RunInstances": launches.prepared_launch,
    "StopInstances": named_by("InstanceIds"),
    "TerminateInstances": named_by("InstanceIds"),
    **dict.fromkeys(
        (
            "AuthorizeSecurityGroupEgress", "AuthorizeSecurityGroupIngress", "DeleteSecurityGroup",
            "ModifySecurityGroupRules", "RevokeSecurityGroupEgress", "RevokeSecurityGroupIngress",
            "UpdateSecurityGroupRuleDescriptionsEgress", "UpdateSecurityGroupRuleDescriptionsIngress",
        ),
        _groups,
    ),
    **dict.fromkeys(
        ("MonitorInstances", "RebootInstances", "StartInstances", "UnmonitorInstances"), named_by("InstanceIds")
    ),
    **dict.fromkeys(
        ("GetPasswordData", "ModifyInstanceMetadataOptions", "ResetInstanceAttribute"), named_by("InstanceId")
    ),
    **dict.fromkeys(
        (
            "DisableImage", "DisableImageDeprecation", "DisableImageDeregistrationProtection", "EnableImage",
            "EnableImageDeprecation", "EnableImageDeregistrationProtection", "GetImageAncestry", "ResetImageAttribute",
            "RestoreImageFromRecycleBin",
        ),
        named_by("ImageId"),
    ),
    **dict.fromkeys(
        (
            "CreateLaunchTemplateVersion", "DeleteLaunchTemplate", "DeleteLaunchTemplateVersions",
            "ModifyLaunchTemplate",
        ),
        launches.named_template,
    ),
    **dict.fromkeys(
        (
            "AssociateIamInstanceProfile", "DisassociateIamInstanceProfile", "ReplaceIamInstanceProfileAssociation",
        ),
        _profile,
    ),
    **dict.fromkeys(("DisassociateAddress", "ReleaseAddress"), _address),
    **dict.fromkeys(("CreatePlacementGroup", "DeletePlacementGroup"), _placement_group),
    "AllocateAddress": _creating("elastic-ip"),
    "AssociateAddress": _associate_address,
    "AttachVolume": named_by("InstanceId", "VolumeId"),
    "CancelImportTask": named_by("ImportTaskId"),
    "CancelSpotInstanceRequests": named_by("SpotInstanceRequestIds"),
    "CopySnapshot": _copy_snapshot,
    "CreateFleet": launches.create_fleet,
    "CreateImageUsageReport": _create_usage_report,
    "CreateKeyPair": _create_key_pair,
    "CreateLaunchTemplate": _creating("launch-template"),
    "CreateNatGateway": _create_nat_gateway,
    "CreateSnapshot": _create_snapshot,
    "CreateVolume": _create_volume,
    "DeleteImageUsageReport": named_by("ReportId"),
    "DeleteNatGateway": named_by("NatGatewayId"),
    "DeleteTags": _create_tags,
    "DeleteVolume": named_by("VolumeId"),
    "DescribeImageReferences": _image_references,
    "DescribeLaunchTemplateVersions": launches.template_versions,
    "DetachVolume": named_by("InstanceId", "VolumeId"),
    "ImportSnapshot": _import_snapshot,
    "ModifyInstanceAttribute": _modify_instance,
    "ModifyInstanceCreditSpecification": _modify_credits,
    "ModifyVolume": named_by("VolumeId"),
    "RequestSpotInstances": launches.request_spot_instances,
    "ResetSnapshotAttribute": named_by("SnapshotId"),
    "RestoreSnapshotFromRecycleBin": named_by("SnapshotId"),
}  # fmt: skip
