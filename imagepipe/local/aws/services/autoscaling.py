"""Auto Scaling groups and launch configurations, which are kept and described, and launch no instances.

They exist because they use images: an image that one of them names must not be retired. moto's own groups are not
used: they look up launch templates and images that moto does not have here, and its instances are no machines.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances import launch_templates
from imagepipe.local.aws.ec2.region_setup import prepare_region
from imagepipe.local.aws.protocol import filters, query
from imagepipe.local.aws.protocol.errors import AwsError, unsupported
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.query import Answer, Call
from imagepipe.local.aws.state.records import AutoScalingGroup, LaunchConfiguration
from imagepipe.partitions import partition

MAX_PAGE = 100
PAGE = 50
"""Size of a page unless the request says another one (API reference, DescribeAutoScalingGroups)."""
SOURCES = ("LaunchConfigurationName", "LaunchTemplate", "MixedInstancesPolicy")
"""The parameters of which a group has exactly one."""
CONFIGURATION_DEFAULTS: Mapping[str, Any] = {
    "KeyName": "",
    "SecurityGroups": [],
    "ClassicLinkVPCSecurityGroups": [],
    "UserData": "",
    "KernelId": "",
    "RamdiskId": "",
    "BlockDeviceMappings": [],
    "InstanceMonitoring": {"Enabled": True},
    "EbsOptimized": False,
}
GROUP_DEFAULTS: Mapping[str, Any] = {
    "DefaultCooldown": 300,
    "LoadBalancerNames": [],
    "TargetGroupARNs": [],
    "HealthCheckType": "EC2",
    "HealthCheckGracePeriod": 0,
    "TerminationPolicies": ["Default"],
    "NewInstancesProtectedFromScaleIn": False,
    "CapacityRebalance": False,
}
NOT_DESCRIBED = frozenset({"InstanceId", "LifecycleHookSpecificationList", "SkipZonalShiftValidation", "Tags"})
Result = Mapping[str, Any]


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer one of the actions on groups and launch configurations; None for any other request."""
    run = ACTIONS.get(action)
    if run is None:
        return None
    values = query.form(context.request.query, context.request.body)
    params = query.service_params("autoscaling", action, values)
    identity = context.identity
    call = Call(action, identity.account, identity.region, params, context.request_id, identity.access_key_id)
    prepare_region(backend, identity.account, identity.region)
    with backend.database.change():
        result = run(backend, call)
    return query.result(action, result, context.request_id, "autoscaling")


def create_launch_configuration(backend: Backend, call: Call) -> Result:
    params = call.params
    name = str(params["LaunchConfigurationName"])
    if _configuration(backend, call, name) is not None:
        text = f"Launch Configuration by this name already exists - A launch configuration with the name {name} exists"
        raise AwsError("AlreadyExists", text)
    if params.get("InstanceId"):
        raise unsupported("The local cloud does not make launch configurations of instances: name ImageId")
    for needed in ("ImageId", "InstanceType"):
        if not params.get(needed):
            raise _invalid(f"Valid requests must contain either the InstanceID parameter or {needed}")
    with _as_validation_error():
        lookup.image(backend, call, str(params["ImageId"]))
    backend.database.put(
        LaunchConfiguration(
            id=_arn(call, f"launchConfiguration:{uuid.uuid4()}:launchConfigurationName/{name}"),
            account=call.account,
            region=call.region,
            name=name,
            created=backend.clock.now(),
            data=json.dumps(params),
        )
    )
    return {}


def describe_launch_configurations(backend: Backend, call: Call) -> Result:
    named = call.params.get("LaunchConfigurationNames", [])
    rows = [row for row in _configurations(backend, call) if not named or row.name in named]
    shown, token = _page(rows, call, {})
    return {"LaunchConfigurations": [_configuration_to_api(row) for row in shown], "NextToken": token}


def delete_launch_configuration(backend: Backend, call: Call) -> Result:
    name = str(call.params["LaunchConfigurationName"])
    found = _configuration(backend, call, name)
    if found is None:
        raise _invalid(f"Launch configuration name not found - Launch configuration {name} not found")
    for group in _groups(backend, call):
        if json.loads(group.data).get("LaunchConfigurationName") == name:
            text = f"Cannot delete launch configuration {name} because it is attached to AutoScalingGroup {group.name}"
            raise AwsError("ResourceInUse", text)
    backend.database.remove(found)
    return {}


def create_auto_scaling_group(backend: Backend, call: Call) -> Result:
    params = call.params
    name = str(params["AutoScalingGroupName"])
    if any(group.name == name for group in _groups(backend, call)):
        text = f"AutoScalingGroup by this name already exists - A group with the name {name} already exists"
        raise AwsError("AlreadyExists", text)
    if params.get("InstanceId"):
        raise unsupported("The local cloud does not make Auto Scaling groups of instances: name a launch template")
    _put(
        backend,
        call,
        AutoScalingGroup(
            id=_arn(call, f"autoScalingGroup:{uuid.uuid4()}:autoScalingGroupName/{name}"),
            account=call.account,
            region=call.region,
            tags={str(tag["Key"]): str(tag.get("Value", "")) for tag in params.get("Tags", [])},
            name=name,
            created=backend.clock.now(),
            data="{}",
        ),
    )
    return {}


def update_auto_scaling_group(backend: Backend, call: Call) -> Result:
    _put(backend, call, _group(backend, call))
    return {}


def describe_auto_scaling_groups(backend: Backend, call: Call) -> Result:
    named = call.params.get("AutoScalingGroupNames", [])
    rows = [row for row in _groups(backend, call) if not named or row.name in named]
    shown, token = _page(rows, call, {"tag-value": lambda row: tuple(row.tags.values())})
    return {"AutoScalingGroups": [_group_to_api(backend, row) for row in shown], "NextToken": token}


def delete_auto_scaling_group(backend: Backend, call: Call) -> Result:
    backend.database.remove(_group(backend, call))
    return {}


def describe_auto_scaling_instances(backend: Backend, call: Call) -> Result:
    """Describe nothing, because the groups have no instances."""
    return {"AutoScalingInstances": []}


ACTIONS: Mapping[str, Callable[[Backend, Call], Result]] = {
    "CreateAutoScalingGroup": create_auto_scaling_group,
    "CreateLaunchConfiguration": create_launch_configuration,
    "DeleteAutoScalingGroup": delete_auto_scaling_group,
    "DeleteLaunchConfiguration": delete_launch_configuration,
    "DescribeAutoScalingGroups": describe_auto_scaling_groups,
    "DescribeAutoScalingInstances": describe_auto_scaling_instances,
    "DescribeLaunchConfigurations": describe_launch_configurations,
    "UpdateAutoScalingGroup": update_auto_scaling_group,
}


def _put(backend: Backend, call: Call, group: AutoScalingGroup) -> None:
    """Keep a group with the parameters of this request over those that it has. Raises AwsError."""
    given = {name: value for name, value in call.params.items() if name != "Tags"}
    before = json.loads(group.data)
    if set(given) & set(SOURCES):
        before = {name: value for name, value in before.items() if name not in SOURCES}
    merged = {**GROUP_DEFAULTS, **before, **given}
    merged.setdefault("DesiredCapacity", merged.get("MinSize"))
    _check_sizes(merged)
    _check_source(backend, call, merged)
    merged["AvailabilityZones"] = _zones(backend, call, merged)
    tags = [{**tag, "PropagateAtLaunch": bool(tag.get("PropagateAtLaunch"))} for tag in call.params.get("Tags", [])]
    merged["TagList"] = tags or before.get("TagList", [])
    backend.database.put(replace(group, data=json.dumps(merged)))


def _check_sizes(group: Mapping[str, Any]) -> None:
    least, wanted, most = int(group["MinSize"]), int(group["DesiredCapacity"]), int(group["MaxSize"])
    if least > most:
        raise _invalid(f"Max bound, {most}, must be greater than or equal to min bound, {least}")
    if not least <= wanted <= most:
        raise _invalid(f"Desired capacity:{wanted} must be between the specified min size:{least} and max size:{most}")
    if wanted:
        raise unsupported(
            "The local cloud launches no instances for Auto Scaling groups: use MinSize=0 and DesiredCapacity=0"
        )


def _check_source(backend: Backend, call: Call, group: Mapping[str, Any]) -> None:
    """Raise AwsError unless the group has one launch template or launch configuration, which exists."""
    if sum(name in group for name in SOURCES) != 1:
        raise _invalid(
            "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or"
            " MixedInstancesPolicy parameter."
        )
    name = group.get("LaunchConfigurationName")
    if name is not None and _configuration(backend, call, str(name)) is None:
        raise _invalid(f"Launch configuration name not found - null, {name}")
    for specification in _specifications(group):
        with _as_validation_error():
            template = launch_templates.find_template(backend, call, specification)
            launch_templates.find_version(template, str(specification.get("Version") or "$Default"))


def _specifications(group: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every reference of a group to a launch template. Raises AwsError."""
    if "LaunchTemplate" in group:
        yield group["LaunchTemplate"]
    if "MixedInstancesPolicy" in group:
        given = group["MixedInstancesPolicy"].get("LaunchTemplate", {})
        if "LaunchTemplateSpecification" not in given:
            raise _invalid("The MixedInstancesPolicy must contain a LaunchTemplateSpecification.")
        yield given["LaunchTemplateSpecification"]
        for override in given.get("Overrides", []):
            if "LaunchTemplateSpecification" in override:
                yield override["LaunchTemplateSpecification"]


def _zones(backend: Backend, call: Call, group: Mapping[str, Any]) -> list[str]:
    """Return the group's availability zones: those of its subnets, or those that it names. Raises AwsError."""
    subnets = {subnet.id: subnet.zone for subnet in backend.network.subnets(call.account, call.region)}
    named = [each.strip() for each in str(group.get("VPCZoneIdentifier", "")).split(",") if each.strip()]
    for identifier in named:
        if identifier not in subnets:
            raise _invalid(f"The subnet ID '{identifier}' does not exist")
    zones = sorted({subnets[each] for each in named}) or list(group.get("AvailabilityZones", []))
    if not zones:
        raise _invalid("At least one Availability Zone or VPC Subnet is required.")
    for zone in zones:
        if zone not in subnets.values():
            raise _invalid(f"Invalid availability zone: {zone}")
    return zones


def _group_to_api(backend: Backend, row: AutoScalingGroup) -> dict[str, Any]:
    group = json.loads(row.data)
    call = Call("DescribeAutoScalingGroups", row.account, row.region, {}, "")
    for specification in _specifications(group):
        _complete(backend, call, specification)
    return {
        **{name: value for name, value in group.items() if name not in (*NOT_DESCRIBED, "TagList")},
        "AutoScalingGroupARN": row.id,
        "CreatedTime": row.created,
        "Instances": [],
        "SuspendedProcesses": [],
        "EnabledMetrics": [],
        "TrafficSources": group.get("TrafficSources", []),
        "ServiceLinkedRoleARN": group.get("ServiceLinkedRoleARN")
        or f"arn:{partition(row.region)}:iam::{row.account}:role/aws-service-role/autoscaling.amazonaws.com"
        "/AWSServiceRoleForAutoScaling",
        "Tags": [
            {"ResourceId": row.name, "ResourceType": "auto-scaling-group", **tag} for tag in group.get("TagList", [])
        ],
    }


def _complete(backend: Backend, call: Call, specification: dict[str, Any]) -> None:
    """Add the id and the name of the launch template, of which the request gave one. It may be deleted meanwhile."""
    try:
        template = launch_templates.find_template(backend, call, specification)
    except AwsError:
        return
    specification |= {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name}


def _configuration_to_api(row: LaunchConfiguration) -> dict[str, Any]:
    given = {name: value for name, value in json.loads(row.data).items() if name != "InstanceId"}
    return {**CONFIGURATION_DEFAULTS, **given, "LaunchConfigurationARN": row.id, "CreatedTime": row.created}


def _page(rows: Sequence[Any], call: Call, getters: Mapping[str, Getter]) -> tuple[Sequence[Any], str | None]:
    size = int(call.params.get("MaxRecords") or PAGE)
    asked = {"MaxResults": size, "NextToken": call.params.get("NextToken"), "Filters": call.params.get("Filters", [])}
    with _as_validation_error():
        return filters.page(rows, asked, getters, least=1, most=MAX_PAGE)


def _configurations(backend: Backend, call: Call) -> list[LaunchConfiguration]:
    rows = backend.database.launch_configurations.owned(call.account, call.region)
    return sorted(rows, key=lambda row: row.name)


def _configuration(backend: Backend, call: Call, name: str) -> LaunchConfiguration | None:
    return next((row for row in _configurations(backend, call) if row.name == name), None)


def _groups(backend: Backend, call: Call) -> list[AutoScalingGroup]:
    rows = backend.database.scaling_groups.owned(call.account, call.region)
    return sorted(rows, key=lambda row: row.name)


def _group(backend: Backend, call: Call) -> AutoScalingGroup:
    name = str(call.params["AutoScalingGroupName"])
    for group in _groups(backend, call):
        if group.name == name:
            return group
    raise _invalid(f"AutoScalingGroup name not found - AutoScalingGroup {name} not found")


def _arn(call: Call, resource: str) -> str:
    return f"arn:{partition(call.region)}:autoscaling:{call.region}:{call.account}:{resource}"


@contextmanager
def _as_validation_error() -> Iterator[None]:
    """Turn EC2's refusal into Auto Scaling's, which has one code for them all."""
    try:
        yield
    except AwsError as error:
        raise _invalid(error.message) from error


def _invalid(text: str) -> AwsError:
    return AwsError("ValidationError", text)
