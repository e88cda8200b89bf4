"""EC2's operations: the gateway's own, and those that moto answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.local.aws.authorization.ec2 import ec2_requests
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import Operation, RequestContext
from imagepipe.local.aws.ec2 import parameters
from imagepipe.local.aws.ec2.actions import MOTO, OWN
from imagepipe.local.aws.ec2.instances.run import prepare
from imagepipe.local.aws.ec2.network.nat_gateways import GONE
from imagepipe.local.aws.ec2.region_setup import prepare_region
from imagepipe.local.aws.moto import describes
from imagepipe.local.aws.moto.refusals import reworded
from imagepipe.local.aws.protocol import query
from imagepipe.local.aws.protocol.errors import AwsError, unsupported
from imagepipe.local.aws.protocol.query import Answer, Call


def parse(backend: Backend, context: RequestContext) -> Operation:
    """Find the action; prepare the region, as a new account finds it."""
    identity, request = context.identity, context.request
    values = query.counted_from_one(query.form(request.query, request.body))
    action = values.get("Action", "")
    if not query.is_action(action):
        raise AwsError("InvalidAction", f"The action {action or '(none)'} is not valid for this web service.")
    values = query.with_numbers(action, values)
    backend.calls.add("ec2", action)
    prepare_region(backend, identity.account, identity.region)
    if action in OWN:
        params = query.params(action, values)
        given = call = Call(
            action, identity.account, identity.region, params, context.request_id, identity.access_key_id
        )
        if action == "RunInstances":
            call = prepare(backend, given)
        run = partial(_run, backend, call)
        return Operation(action, call.params, ec2_requests(backend, given), lambda: _in_namespace(run(), values))
    if action not in MOTO:
        raise AwsError("UnsupportedOperation", f"The local cloud does not have the action {action}")
    call = Call(action, identity.account, identity.region, {}, context.request_id)

    def run_by_moto() -> Answer:
        with backend.database.lock:
            _check_against_instances(backend, call, values)
        if describes.is_filtered(action):
            amend = partial(_amend, backend, call)
            return reworded(describes.describe(backend.moto, context, action, values, amend))
        answer = reworded(backend.moto.answer(describes.with_form(context, values), action))
        returns_nothing = answer.status == 200 and not query.has_result(action)
        return query.result(action, {}, context.request_id) if returns_nothing else answer

    return Operation(action, values, ec2_requests(backend, call), lambda: _in_namespace(run_by_moto(), values))


def _in_namespace(answer: Answer, values: Mapping[str, str]) -> Answer:
    """Put an answer in the XML namespace of the API version that the request names."""
    return replace(answer, body=query.in_namespace(answer.body, values.get("Version", "")))


def _run(backend: Backend, call: Call) -> Answer:
    """Run the gateway's own action in one change of the database."""
    faults = backend.faults
    with backend.database.change():
        faults.hidden.refuse(call)
        parameters.check_supported(call)
        answer = OWN[call.action](backend, call)
        if call.params.get("DryRun"):
            raise AwsError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412)
    if call.action.startswith(("Describe", "List")):
        answer = faults.hidden.without(answer)
    elif hidden := faults.take("hide", call.action, call.params):
        faults.hidden.hide(answer, seconds=hidden.seconds, calls=hidden.calls)
    return query.result(call.action, answer, call.request_id)


def _amend(backend: Backend, call: Call, item: dict[str, Any]) -> dict[str, Any]:
    """Correct moto's description of a resource: it does not know the instances, and lacks members that EC2 returns."""
    match call.action:
        case "DescribeSubnets":
            rows = backend.database.instances.owned(call.account, call.region)
            used = sum(row.subnet_id == item["SubnetId"] and row.state != "terminated" for row in rows)
            return {
                "EnableDns64": False,
                "MapCustomerOwnedIpOnLaunch": False,
                "BlockPublicAccessStates": {"InternetGatewayBlockMode": "off"},
                **item,
                "AvailableIpAddressCount": item["AvailableIpAddressCount"] - used,
                "Tags": item.get("Tags") or None,
            }
        case "DescribeVpcs":
            optional = ("Ipv6CidrBlockAssociationSet", "Tags")
            return {**item, **{name: item.get(name) or None for name in optional}}
        case "DescribeRouteTables":
            return {"PropagatingVgws": [], **item}
        case "DescribePrefixLists" | "DescribeManagedPrefixLists":
            return _with_entries(backend, call, item)
        case _:
            return item


def _with_entries(backend: Backend, call: Call, item: dict[str, Any]) -> dict[str, Any]:
    """Add the blocks of a prefix list, which moto knows and does not describe, and the version of those of AWS."""
    blocks = backend.network.prefix_list_blocks(call.account, call.region, item["PrefixListId"])
    if call.action == "DescribePrefixLists":
        return {**item, "Cidrs": blocks}
    return {"MaxEntries": max(1, len(blocks)), "Version": 1, **item}


def _check_against_instances(backend: Backend, call: Call, values: Mapping[str, str]) -> None:
    """Raise AwsError if the call does not fit the instances and groups, which moto does not know."""
    database = backend.database
    living = [row for row in database.instances.owned(call.account, call.region) if row.state != "terminated"]
    gateways = [row for row in database.nat_gateways.owned(call.account, call.region) if row.state not in GONE]
    subnets = {row.subnet_id for row in living} | {row.subnet_id for row in gateways}
    vpcs = {row.vpc_id for row in living} | {row.vpc_id for row in gateways}
    match call.action:
        case "DeleteSubnet":
            kind = "subnet"
            name = values.get("SubnetId", "")
            is_used = name in subnets
        case "DeleteVpc":
            kind = "vpc"
            name = values.get("VpcId", "")
            groups = [row for row in database.groups.owned(call.account, call.region) if row.vpc_id == name]
            is_used = name in vpcs or any(row.name != "default" for row in groups)
            is_used |= any(subnet.vpc_id == name for subnet in backend.network.subnets(call.account, call.region))
        case "DeleteInternetGateway":
            kind = "internetGateway"
            name = values.get("InternetGatewayId", "")
            is_used = backend.network.is_attached(call.account, call.region, name)
        case "DetachInternetGateway":
            name = values.get("VpcId", "")
            if any(row.vpc_id == name and row.has_public_ip for row in living):
                raise AwsError(
                    "DependencyViolation",
                    f"Network {name} has some mapped public address(es). Please unmap those public address(es) before "
                    "detaching the gateway.",
                )
            return
        case "CreateRoute" | "ReplaceRoute":
            gateway = values.get("NatGatewayId")
            if gateway and gateway not in {row.id for row in gateways}:
                raise AwsError("InvalidNatGatewayID.NotFound", f"The natGateway ID '{gateway}' does not exist")
            target = values.get("InstanceId") or values.get("NetworkInterfaceId")
            if any(target in (row.id, row.interface_id) for row in living):
                raise unsupported(f"The local cloud does not route traffic through {target}")
            return
        case _:
            return
    if is_used:
        raise AwsError("DependencyViolation", f"The {kind} '{name}' has dependencies and cannot be deleted.")
