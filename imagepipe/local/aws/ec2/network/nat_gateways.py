"""NAT gateways: kept and described, with their states; no packet goes through them.

moto's routes need an object of moto's for each, so that a route table can name the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency
from imagepipe.local.aws.ec2.instances.placement import taken_addresses
from imagepipe.local.aws.moto.refusals import unknown_id
from imagepipe.local.aws.moto.vpcs import Subnet, free_private_ip
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid, missing, unsupported
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Address, NatGateway

REMEMBERED = timedelta(hours=1)  # VPC user guide, "Work with NAT gateways": deleted ones are visible for about an hour
GONE = ("deleted", "failed")


def create_nat_gateway(backend: Backend, call: Call) -> Mapping[str, Any]:
    before = idempotency.earlier_result(backend, call)
    if before is not None:
        return _created(call, backend.database.nat_gateways[before[0]])
    params = call.params
    if params.get("AvailabilityMode") not in (None, "zonal"):
        raise unsupported("The local cloud has no regional NAT gateways")
    kind = params.get("ConnectivityType") or "public"
    if kind not in ("public", "private"):
        raise invalid(f"Value ({kind}) for parameter connectivityType is invalid.")
    if not params.get("SubnetId"):
        raise missing("subnetId")
    subnet = backend.network.subnet(call.account, call.region, params["SubnetId"])
    allocation = params.get("AllocationId")
    if kind == "private" and allocation:
        raise conflicting("A private NAT gateway cannot have the parameter AllocationId")
    if kind == "public" and not allocation:
        raise missing("allocationId")
    address = _allocation(backend, call, allocation) if allocation else None
    gateway = NatGateway(
        id=new_id("nat"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(params, "natgateway")["natgateway"],
        subnet_id=subnet.id,
        vpc_id=subnet.vpc_id,
        kind=kind,
        private_ip=_private_ip(backend, subnet, params.get("PrivateIpAddress")),
        interface_id=new_id("eni"),
        created=backend.clock.now(),
        public_ip=address.public_ip if address else "",
        allocation_id=address.id if address else "",
        failure=_failure(backend, call, subnet, address),
    )
    if address and not gateway.failure[0]:
        gateway = replace(gateway, association_id=new_id("eipassoc"))
        backend.database.put(replace(address, nat_gateway_id=gateway.id, association_id=gateway.association_id))
    backend.faults.bind(gateway.id, call.action, params, "fail", "hang")
    _forget_deleted(backend)
    backend.database.put(gateway)
    idempotency.remember(backend, call, [gateway.id])
    backend.database.later(
        partial(backend.network.add_nat_gateway, call.account, call.region, gateway.id, subnet_id=subnet.id)
    )
    backend.submit_later(gateway.id, start, gateway.id)
    return _created(call, gateway)


def _created(call: Call, gateway: NatGateway) -> Mapping[str, Any]:
    return {"ClientToken": call.params.get("ClientToken"), "NatGateway": to_api(gateway)}


def _allocation(backend: Backend, call: Call, identifier: str) -> Address:
    for address in backend.database.addresses.owned(call.account, call.region):
        if address.id == identifier:
            return address
    raise AwsError("InvalidAllocationID.NotFound", f"The allocation ID '{identifier}' does not exist")


def _private_ip(backend: Backend, subnet: Subnet, wanted: str | None) -> str:
    living = [row.private_ip for row in backend.database.instances if row.state != "terminated"]
    taken = {*taken_addresses(backend), *living, *(row.private_ip for row in backend.database.nat_gateways)}
    if wanted in taken:
        raise AwsError("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    return wanted or free_private_ip(subnet.cidr, taken)


def _failure(backend: Backend, call: Call, subnet: Subnet, address: Address | None) -> tuple[str, str]:
    """Return code and text of a failure that EC2 finds only after its answer; both are empty for no failure.

    EC2 API reference, NatGateway, FailureCode and FailureMessage.
    """
    if address is None:
        return "", ""
    if address.association_id:
        return "Resource.AlreadyAssociated", f"Elastic IP address {address.id} is already associated"
    if not backend.network.has_internet_gateway(call.account, call.region, subnet.vpc_id):
        return "Gateway.NotAttached", f"Network {subnet.vpc_id} has no Internet gateway attached"
    return "", ""


def start(backend: Backend, gateway_id: str) -> None:
    """Make a pending gateway available, or failed. A job of the gateway's queue."""
    backend.job_queues.delay("nat-gateway")
    with backend.database.change():
        gateway = backend.database.nat_gateways.get(gateway_id)
        if gateway is None or gateway.state != "pending" or backend.faults.bound(gateway_id, "hang"):
            return
        fault = backend.faults.bound(gateway_id, "fail")
        failure = ("InternalError", fault.reason) if fault else gateway.failure
        if not failure[0]:
            backend.database.put(replace(gateway, state="available"))
            return
        _release(backend, gateway)
        backend.database.put(
            replace(gateway, state="failed", failure=failure, association_id="", deleted=backend.clock.now())
        )
        backend.database.later(partial(backend.network.remove_nat_gateway, gateway.account, gateway.region, gateway.id))


def delete_nat_gateway(backend: Backend, call: Call) -> Mapping[str, Any]:
    gateway = _named(backend, call, [call.text("NatGatewayId")])[0]
    if gateway.state not in (*GONE, "deleting"):
        backend.database.put(replace(gateway, state="deleting"))
        backend.submit_later(gateway.id, finish, gateway.id)
    return {"NatGatewayId": gateway.id}


def finish(backend: Backend, gateway_id: str) -> None:
    """Delete a gateway that is deleting, and release its address. A job of the gateway's queue."""
    backend.job_queues.delay("nat-gateway")
    with backend.database.change():
        gateway = backend.database.nat_gateways.get(gateway_id)
        if gateway is None or gateway.state != "deleting":
            return
        _release(backend, gateway)
        backend.database.put(replace(gateway, state="deleted", deleted=backend.clock.now()))
        backend.database.later(partial(backend.network.remove_nat_gateway, gateway.account, gateway.region, gateway.id))


def _release(backend: Backend, gateway: NatGateway) -> None:
    address = backend.database.addresses.get(gateway.allocation_id)
    if address is not None and address.nat_gateway_id == gateway.id:
        backend.database.put(replace(address, nat_gateway_id="", association_id=""))


def _forget_deleted(backend: Backend) -> None:
    for gateway in backend.database.nat_gateways:
        if not _is_remembered(backend, gateway):
            backend.database.remove(gateway)


def _is_remembered(backend: Backend, gateway: NatGateway) -> bool:
    return gateway.deleted is None or gateway.deleted > backend.clock.now() - REMEMBERED


def _named(backend: Backend, call: Call, identifiers: list[str]) -> list[NatGateway]:
    known = {
        row.id: row
        for row in backend.database.nat_gateways.owned(call.account, call.region)
        if _is_remembered(backend, row)
    }
    for identifier in identifiers:
        if identifier not in known:
            raise unknown_id(identifier if identifier.startswith("nat-") else f"nat-{identifier}")
    return [known[each] for each in identifiers] if identifiers else list(known.values())


def describe_nat_gateways(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = _named(backend, call, call.params.get("NatGatewayIds", []))
    params = {**call.params, "Filters": call.params.get("Filter", [])}
    getters = AnswerFilters("DescribeNatGateways", to_api)
    shown, token = filters.page(rows, params, getters, ids="NatGatewayIds")
    return {"NatGateways": [to_api(row) for row in shown], "NextToken": token}


def to_api(gateway: NatGateway) -> dict[str, Any]:
    """Describe a NAT gateway as DescribeNatGateways does."""
    address = {
        "AllocationId": gateway.allocation_id or None,
        "AssociationId": gateway.association_id or None,
        "IsPrimary": True,
        "NetworkInterfaceId": gateway.interface_id,
        "PrivateIp": gateway.private_ip,
        "PublicIp": gateway.public_ip or None,
        "Status": {"pending": "associating", "available": "succeeded", "failed": "failed"}.get(
            gateway.state, "disassociating"
        ),
    }
    has_failed = gateway.state == "failed"
    return {
        "NatGatewayId": gateway.id,
        "ConnectivityType": gateway.kind,
        "AvailabilityMode": "zonal",
        "State": gateway.state,
        "SubnetId": gateway.subnet_id,
        "VpcId": gateway.vpc_id,
        "CreateTime": gateway.created,
        "DeleteTime": gateway.deleted,
        "FailureCode": gateway.failure[0] if has_failed else None,
        "FailureMessage": gateway.failure[1] if has_failed else None,
        "NatGatewayAddresses": [address],
        "Tags": tagging.if_any(gateway.tags),
    }


def resume(backend: Backend) -> None:
    """Submit what an earlier process did not finish."""
    for gateway in backend.database.nat_gateways:
        if gateway.state == "pending":
            backend.network.add_nat_gateway(gateway.account, gateway.region, gateway.id, subnet_id=gateway.subnet_id)
            backend.submit(gateway.id, start, gateway.id)
        elif gateway.state == "deleting":
            backend.submit(gateway.id, finish, gateway.id)
        elif gateway.state in GONE:
            backend.network.remove_nat_gateway(gateway.account, gateway.region, gateway.id)
