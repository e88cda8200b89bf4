"""The permissions of launches: RunInstances, and the actions that lead to it by launch templates, fleets and spot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.iam.facts import ANY
from imagepipe.local.aws.authorization.other_services import (
    common_context,
    key_requests,
    pass_role_request,
)
from imagepipe.local.aws.authorization.resources import creates, key_pair_request, request, use_request
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances import fleet, launch_templates, run
from imagepipe.local.aws.ec2.volumes import encryption
from imagepipe.local.aws.moto.parameters import parameter_arn
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image


def run_instances(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
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
    yield use_request(backend, call, image_id)
    yield from creates(call, "instance", more=more)
    yield from _volumes(backend, call, image)
    yield from _network(backend, call)
    if key := params.get("KeyName"):
        yield key_pair_request(backend, call, key)


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
        yield from creates(call, "volume", more={"ec2:Encrypted": str(encrypted).lower()})
        if snapshot := ebs.get("SnapshotId"):
            yield use_request(backend, call, str(snapshot))
        yield from key_requests(backend, call, str(key)) if key else ()


def _network(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for subnet and groups; EC2's own choice is `*`, which no rule about one group or subnet allows."""
    interface: Mapping[str, Any] = next(iter(call.params.get("NetworkInterfaces", [])), {})
    subnet = interface.get("SubnetId") or call.params.get("SubnetId")
    groups = interface.get("Groups") or call.params.get("SecurityGroupIds") or ()
    yield from creates(call, "network-interface")
    yield use_request(backend, call, str(subnet)) if subnet else request(call, call.action, "subnet", "*", {})
    for group in groups:
        yield use_request(backend, call, str(group))
    if not groups:
        yield request(call, call.action, "security-group", "*", {})


def template_requests(backend: Backend, call: Call, given: Mapping[str, Any]) -> Iterator[AuthorizationRequest]:
    """Ask to use the launch template that a request names by id or by name."""
    identifier, name = given.get("LaunchTemplateId"), given.get("LaunchTemplateName")
    for template in backend.database.templates.owned(call.account, call.region):
        if identifier == template.id or (name and name == template.name):
            yield use_request(backend, call, template.id)
            return
    yield request(call, call.action, "launch-template", str(identifier or "*"), {})


def named_template(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for an action on a launch template."""
    yield from template_requests(backend, call, call.params)


def template_versions(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask to describe versions, and to read the parameters whose values a request wants to see (`ResolveAlias`)."""
    yield AuthorizationRequest(f"ec2:{call.action}", ANY, common_context(call.account, call.region))
    if call.params.get("ResolveAlias"):
        plain = replace(call, params={**call.params, "ResolveAlias": False})
        versions = launch_templates.describe_launch_template_versions(backend, plain)["LaunchTemplateVersions"]
        images = [str(version["LaunchTemplateData"].get("ImageId", "")) for version in versions]
        for image in dict.fromkeys(image for image in images if image.startswith(lookup.RESOLVE)):
            yield _parameter_request(call, image.removeprefix(lookup.RESOLVE))


def prepared_launch(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for a launch as a caller asks for it: for its launch template, for the parameter that names its image, and
    for what the template and the parameter lead to.
    """
    if template := call.params.get("LaunchTemplate"):
        yield from template_requests(backend, call, template)
    image = str(launch_templates.apply(backend, call).params.get("ImageId") or "")
    if image.startswith(lookup.RESOLVE):
        yield _parameter_request(call, image.removeprefix(lookup.RESOLVE))
    yield from run_instances(backend, run.prepare(backend, call))


def _parameter_request(call: Call, name: str) -> AuthorizationRequest:
    """Ask to read a parameter, named with or without a version or label.

    EC2 does so with the caller's permissions (EC2 user guide, "Use a Systems Manager parameter to reference AMIs").
    """
    if name.startswith("arn:"):
        arn = ":".join(name.split(":")[:6])
    else:
        arn = parameter_arn(call.account, call.region, name.partition(":")[0])
    return AuthorizationRequest("ssm:GetParameters", arn, common_context(call.account, call.region))


def create_fleet(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    """Ask for the fleet, and for the launch in each of its pools, which EC2 makes with the caller's permissions.

    EC2 user guide, "EC2 Fleet prerequisites", has RunInstances, CreateTags and PassRole.
    """
    yield from creates(call, "fleet")
    yield request(call, call.action, "instance", "*", {})
    market = str(call.params.get("TargetCapacitySpecification", {}).get("DefaultTargetCapacityType") or "on-demand")
    for pool in _pools(call):
        yield from template_requests(backend, call, pool[0])
        try:
            requests = list(prepared_launch(backend, fleet.pool_launch(call, pool, market, 1)))
        except AwsError:
            continue  # the fleet reports it among its errors
        yield from requests


def _pools(call: Call) -> list[fleet.Pool]:
    try:
        return list(fleet.pools(call))
    except AwsError:
        return []


def request_spot_instances(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
    yield from creates(call, "spot-instances-request")
    launch = call.params.get("LaunchSpecification", {})
    profile = launch.get("IamInstanceProfile", {})
    if named := profile.get("Arn") or profile.get("Name"):
        yield pass_role_request(backend, call, named)
    image = str(launch.get("ImageId") or "")
    if image.startswith(lookup.RESOLVE):
        yield _parameter_request(call, image.removeprefix(lookup.RESOLVE))
    elif image:
        yield use_request(backend, call, image)
    interface: Mapping[str, Any] = next(iter(launch.get("NetworkInterfaces", [])), {})
    if subnet := interface.get("SubnetId") or launch.get("SubnetId"):
        yield use_request(backend, call, str(subnet))
    for group in interface.get("Groups") or launch.get("SecurityGroupIds") or ():
        yield use_request(backend, call, str(group))
    for mapping in launch.get("BlockDeviceMappings", []):
        if snapshot := mapping.get("Ebs", {}).get("SnapshotId"):
            yield use_request(backend, call, str(snapshot))
    if key := launch.get("KeyName"):
        yield key_pair_request(backend, call, key)
