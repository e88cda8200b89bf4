"""Security groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.region_setup import open_egress
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, invalid, missing
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Rule, SecurityGroup

MAX_LENGTH = 255

GETTERS: Mapping[str, Getter] = {
    **filters.by_attribute("description", "vpc-id"),
    "group-id": lambda row: row.id,
    "group-name": lambda row: row.name,
}


def create_security_group(backend: Backend, call: Call) -> Mapping[str, Any]:
    name, description = call.text("GroupName"), call.params.get("Description")
    if not description:
        raise AwsError("MissingParameter", "The request must contain the parameter GroupDescription")
    if len(name) > MAX_LENGTH or len(description) > MAX_LENGTH:
        raise invalid(f"Names and descriptions of security groups have at most {MAX_LENGTH} characters")
    if name.startswith("sg-"):
        raise invalid(f"Value ({name}) for parameter groupName is invalid. It must not start with 'sg-'")
    vpc_id = call.params.get("VpcId") or backend.network.default_vpc_id(call.account, call.region)
    if vpc_id is None:
        raise AwsError("VPCIdNotSpecified", "No default VPC for this user")
    if vpc_id not in backend.network.vpc_ids(call.account, call.region):
        raise AwsError("InvalidVpcID.NotFound", f"The vpc ID '{vpc_id}' does not exist")
    for group in backend.database.groups.owned(call.account, call.region):
        if group.name == name and group.vpc_id == vpc_id:
            raise AwsError("InvalidGroup.Duplicate", f"The security group '{name}' already exists for VPC '{vpc_id}'")
    group = SecurityGroup(
        id=new_id("sg"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(call.params, "security-group")["security-group"],
        name=name,
        description=description,
        vpc_id=vpc_id,
        egress=(open_egress(),),
    )
    backend.database.put(group)
    return {"GroupId": group.id, "Tags": tagging.if_any(group.tags), "SecurityGroupArn": _arn(group)}


def _arn(group: SecurityGroup) -> str:
    return f"arn:aws:ec2:{group.region}:{group.account}:security-group/{group.id}"


def named(backend: Backend, call: Call) -> SecurityGroup:
    """Find the group that a request names, by id, or by name in the default VPC."""
    if call.params.get("GroupId"):
        return lookup.group(backend, call, call.params["GroupId"])
    name = call.params.get("GroupName")
    if not name:
        raise missing("groupName or groupId")
    vpc_id = backend.network.default_vpc_id(call.account, call.region)
    for group in backend.database.groups.owned(call.account, call.region):
        if group.name == name and group.vpc_id == vpc_id:
            return group
    raise AwsError("InvalidGroup.NotFound", f"The security group '{name}' does not exist in default VPC '{vpc_id}'")


def delete_security_group(backend: Backend, call: Call) -> Mapping[str, Any]:
    group = named(backend, call)
    if group.name == "default":
        raise AwsError("CannotDelete", f'the specified group: "{group.id}" name: "default" cannot be deleted by a user')
    used = [row.id for row in backend.database.instances if group.id in row.group_ids and row.state != "terminated"]
    used += [
        row.id
        for row in backend.database.groups
        if row.id != group.id and any(rule.group_id == group.id for rule in (*row.ingress, *row.egress))
    ]
    if used:
        raise AwsError("DependencyViolation", f"resource {group.id} has a dependent object")
    backend.database.remove(group)
    return {"Return": True, "GroupId": group.id}


def describe_security_groups(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = backend.database.groups.owned(call.account, call.region)
    ids, names = call.params.get("GroupIds", []), call.params.get("GroupNames", [])
    wanted = {lookup.group(backend, call, identifier).id for identifier in ids}
    for name in names:
        found = [row.id for row in rows if row.name == name]
        if not found:
            raise AwsError("InvalidGroup.NotFound", f"The security group '{name}' does not exist")
        wanted.update(found)
    if ids or names:
        rows = [row for row in rows if row.id in wanted]
    getters = AnswerFilters("DescribeSecurityGroups", to_api, GETTERS)
    shown, token = filters.page(rows, call.params, getters, ids="GroupIds")
    return {"SecurityGroups": [to_api(row) for row in shown], "NextToken": token}


def to_api(group: SecurityGroup) -> dict[str, Any]:
    """Describe a group as DescribeSecurityGroups does."""
    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "Description": group.description,
        "OwnerId": group.account,
        "VpcId": group.vpc_id,
        "SecurityGroupArn": _arn(group),
        "IpPermissions": _permissions(group.ingress),
        "IpPermissionsEgress": _permissions(group.egress),
        "Tags": tagging.if_any(group.tags),
    }


def _permissions(rules: tuple[Rule, ...]) -> list[dict[str, Any]]:
    """Describe rules, those of the same ports together."""
    by_ports: dict[tuple[str, int, int], dict[str, Any]] = {}
    for rule in rules:
        entry = by_ports.setdefault(
            (rule.protocol, rule.from_port, rule.to_port),
            {
                "IpProtocol": rule.protocol,
                "FromPort": None if rule.protocol == "-1" else rule.from_port,
                "ToPort": None if rule.protocol == "-1" else rule.to_port,
                "IpRanges": [],
                "Ipv6Ranges": [],
                "PrefixListIds": [],
                "UserIdGroupPairs": [],
            },
        )
        note = {"Description": rule.description} if rule.description else {}
        if rule.cidr:
            entry["IpRanges"].append({"CidrIp": rule.cidr, **note})
        elif rule.cidr_v6:
            entry["Ipv6Ranges"].append({"CidrIpv6": rule.cidr_v6, **note})
        elif rule.prefix_list:
            entry["PrefixListIds"].append({"PrefixListId": rule.prefix_list, **note})
        else:
            entry["UserIdGroupPairs"].append({"GroupId": rule.group_id, "UserId": rule.group_account, **note})
    return list(by_ports.values())
