"""The permissions that a call to EC2 needs: one request to IAM for each resource, with its condition keys.

The types of resources that an action touches, and their condition keys, are in `iam.facts`; here are the values. A new
resource has no id yet: `*` stands for it. Tagging it in the call that creates it takes a second request to IAM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.iam.facts import ACTIONS, ANY, arn, family, keys_of
from imagepipe.local.aws.authorization.other_services import common_context, key_requests, pass_role_request
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.tags import KINDS
from imagepipe.local.aws.ec2.volumes import encryption
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image

Values = Mapping[str, str | tuple[str, ...]]


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


def _request(
    call: Call, action: str, kind: str, id: str, values: Values, *, region: str | None = None
) -> AuthorizationRequest:
    """Make one request, with the action's condition keys. Raises AwsError if the action has no such resource type."""
    name = f"ec2:{action}"
    try:
        known = keys_of(name, kind)
    except KeyError:
        text = f"The local cloud does not know what {name} asks of IAM about a thing like {id}"
        raise AwsError("UnauthorizedOperation", text, status=403) from None
    context = common_context(call.account, call.region) | {
        key: (value,) if isinstance(value, str) else value for key, value in values.items() if family(key) in known
    }
    return AuthorizationRequest(name, arn(region or call.region, kind, id, account=call.account), context)


def _tags(tags: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    return {f"{prefix}/{key}": value for prefix in prefixes for key, value in tags.items()}


def _requested(tags: Mapping[str, str]) -> dict[str, str | tuple[str, ...]]:
    return {**_tags(tags, "aws:RequestTag"), **({"aws:TagKeys": tuple(tags)} if tags else {})}


def _creates(call: Call, kind: str, id: str = "*", more: Values | None = None) -> Iterator[AuthorizationRequest]:
    """Ask to create a resource, and to tag it if the call does."""
    specified = {str(each.get("ResourceType")): each for each in call.params.get("TagSpecifications", [])}
    tags = tagging.parse(specified.get(kind, {}).get("Tags", []))
    yield _request(call, call.action, kind, id, {**_requested(tags), **(more or {})})
    if tags:
        yield _request(call, "CreateTags", kind, id, {**_requested(tags), "ec2:CreateAction": call.action})


def _use_request(backend: Backend, call: Call, id: str, more: Values | None = None) -> AuthorizationRequest:
    """Ask to use a resource; for one that the caller cannot see, IAM knows only the id."""
    kind = KINDS.get(id.partition("-")[0], "instance")
    record = backend.database.find(id, call.region)
    tags = record.tags if record else backend.network.tags(call.account, call.region).get(id, {})
    values = {**(more or {}), **_tags(tags, "aws:ResourceTag", "ec2:ResourceTag")}
    if record is not None:
        values["ec2:Owner"] = record.account
    if isinstance(record, Image):
        values |= {"ec2:ImageID": id, "ec2:Public": str("all" in record.users).lower()}
    name = record.name if record is not None and kind == "key-pair" else id  # type: ignore[attr-defined]
    return _request(call, call.action, kind, name, values)


def _key_pair_request(backend: Backend, call: Call, name: object, id: object = None) -> AuthorizationRequest:
    """Ask to use the key pair of this name or id."""
    for pair in backend.database.key_pairs.owned(call.account, call.region):
        if pair.name == name or pair.id == id:
            return _use_request(backend, call, pair.id)
    return _request(call, call.action, "key-pair", str(name or id), {})


def _named_by(name: str) -> Callable[[Backend, Call], Iterator[AuthorizationRequest]]:
    """Make the function for an action that touches only the resources that this parameter names."""

    def requests(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
        found = call.params.get(name) or []
        for id in [found] if isinstance(found, str) else found:
            yield _use_request(backend, call, id)

    return requests


def _run_instances(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    params = call.params
    image_id = str(params.get("ImageId"))
    image = backend.database.images.get(image_id)
    profile = params.get("IamInstanceProfile", {})
    more: dict[str, str] = {
        "ec2:InstanceType": str(params.get("InstanceType") or "m1.small"),
        "ec2:MetadataHttpTokens": str(params.get("MetadataOptions", {}).get("HttpTokens", "optional")),
    }
    if named := profile.get("Arn") or profile.get("Name"):
        more["ec2:InstanceProfile"] = (
            named if named.startswith("arn:") else f"arn:aws:iam::{call.account}:instance-profile/{named}"
        )
        yield pass_role_request(backend, call, named)
    yield _use_request(backend, call, image_id)
    yield from _creates(call, "instance", more=more)
    yield from _volumes(backend, call, image)
    yield from _network(backend, call)
    if key := params.get("KeyName"):
        yield _key_pair_request(backend, call, key)


def _volumes(backend: Backend, call: Call, image: Image | None) -> Iterator[AuthorizationRequest]:
    """Ask for each volume by its encryption, for the snapshots that the request names, and for the keys."""
    wanted = {str(each.get("DeviceName")): each for each in call.params.get("BlockDeviceMappings", [])}
    own = {disk.device: disk for disk in (image.mappings if image else ()) if not disk.virtual_name}
    for device in own:
        wanted.setdefault(device, {"Ebs": {}})
    by_default = encryption.encrypts_by_default(backend, call)
    for device, mapping in wanted.items():
        ebs = mapping.get("Ebs")
        if ebs is None:
            continue
        key = ebs.get("KmsKeyId")
        encrypted = bool(ebs.get("Encrypted") or key or by_default or (device in own and own[device].encrypted))
        yield from _creates(call, "volume", more={"ec2:Encrypted": str(encrypted).lower()})
        if snapshot := ebs.get("SnapshotId"):
            yield _use_request(backend, call, str(snapshot))
        yield from key_requests(backend, call, str(key)) if key else ()


def _network(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for subnet and groups; EC2's own choice is `*`, which no rule about one group or subnet allows."""
    interface: Mapping[str, Any] = next(iter(call.params.get("NetworkInterfaces", [])), {})
    subnet = interface.get("SubnetId") or call.params.get("SubnetId")
    groups = interface.get("Groups") or call.params.get("SecurityGroupIds") or ()
    yield from _creates(call, "network-interface")
    yield _use_request(backend, call, str(subnet)) if subnet else _request(call, call.action, "subnet", "*", {})
    for group in groups:
        yield _use_request(backend, call, str(group))
    if not groups:
        yield _request(call, call.action, "security-group", "*", {})


def _create_image(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield _use_request(backend, call, str(call.params.get("InstanceId")))
    yield from _creates(call, "image")
    yield from _creates(call, "snapshot")


def _create_snapshots(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    specification = call.params.get("InstanceSpecification", {})
    instance = backend.database.instances.get(str(specification.get("InstanceId")))
    yield _use_request(backend, call, str(specification.get("InstanceId")))
    left_out = specification.get("ExcludeDataVolumeIds", [])
    for volume in instance.volumes if instance else ():
        if volume.volume_id not in left_out:
            yield _use_request(backend, call, volume.volume_id)
    yield from _creates(call, "snapshot")


def _register_image(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from _creates(call, "image")
    for mapping in call.params.get("BlockDeviceMappings", []):
        if snapshot := mapping.get("Ebs", {}).get("SnapshotId"):
            yield _use_request(backend, call, str(snapshot))


def _copy_image(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for the source image in its own region, and for the resources that are made here."""
    id, region = str(call.params.get("SourceImageId")), str(call.params.get("SourceRegion"))
    source = backend.database.images.get(id)
    values = {"ec2:ImageID": id, **({"ec2:Owner": source.account} if source else {})}
    yield _request(call, call.action, "image", id, values, region=region)
    yield from _creates(call, "image")
    yield from _creates(call, "snapshot") if source is None or source.root_type == "ebs" else ()
    if key := call.params.get("KmsKeyId"):
        yield from key_requests(backend, call, str(key))


def _create_security_group(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from _creates(call, "security-group")
    if vpc := call.params.get("VpcId"):
        yield _use_request(backend, call, str(vpc))


def _import_key_pair(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from _creates(call, "key-pair", str(call.params.get("KeyName")))


def _delete_key_pair(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield _key_pair_request(backend, call, call.params.get("KeyName"), call.params.get("KeyPairId"))


def _modify_snapshot(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    added = call.params.get("CreateVolumePermission", {}).get("Add", [])
    users = [str(each["UserId"]) for each in added if "UserId" in each]
    groups = [str(each["Group"]) for each in added if "Group" in each]
    if call.params.get("OperationType") == "add":
        users += call.params.get("UserIds", [])
        groups += call.params.get("GroupNames", [])
    named: Values = {
        **({"ec2:Add/userId": tuple(users)} if users else {}),
        **({"ec2:Add/group": tuple(groups)} if groups else {}),
    }
    yield _use_request(backend, call, str(call.params.get("SnapshotId")), named)


def _create_tags(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    tags = tagging.parse(call.params.get("Tags", []))
    for id in call.params.get("Resources", []):
        yield _use_request(backend, call, str(id), _requested(tags))


REQUESTS: Mapping[str, Callable[[Backend, Call], Iterator[AuthorizationRequest]]] = {
    "AuthorizeSecurityGroupIngress": _named_by("GroupId"),
    "CopyImage": _copy_image,
    "CreateImage": _create_image,
    "CreateSecurityGroup": _create_security_group,
    "CreateSnapshots": _create_snapshots,
    "CreateTags": _create_tags,
    "DeleteKeyPair": _delete_key_pair,
    "DeleteSecurityGroup": _named_by("GroupId"),
    "DeleteSnapshot": _named_by("SnapshotId"),
    "DeregisterImage": _named_by("ImageId"),
    "DescribeImageAttribute": _named_by("ImageId"),
    "GetConsoleOutput": _named_by("InstanceId"),
    "ImportKeyPair": _import_key_pair,
    "ModifyImageAttribute": _named_by("ImageId"),
    "ModifySnapshotAttribute": _modify_snapshot,
    "RegisterImage": _register_image,
    "RunInstances": _run_instances,
    "StopInstances": _named_by("InstanceIds"),
    "TerminateInstances": _named_by("InstanceIds"),
}
