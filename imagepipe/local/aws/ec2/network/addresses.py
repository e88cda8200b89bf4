"""Elastic IP addresses: loopback addresses that an account has, and that lead to one of its instances after another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances import jobs
from imagepipe.local.aws.ec2.instances.placement import taken_addresses
from imagepipe.local.aws.moto.vpcs import POOL, free_address
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid, missing
from imagepipe.local.aws.protocol.ids import new_id, not_found
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Address, Instance


def allocate_address(backend: Backend, call: Call) -> Mapping[str, Any]:
    domain = call.params.get("Domain") or "vpc"
    if domain not in ("vpc", "standard"):  # `standard` was EC2-Classic's, and is taken for vpc since
        raise invalid(f"Invalid value '{domain}' for domain.")
    address = Address(
        id=new_id("eipalloc"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(call.params, "elastic-ip")["elastic-ip"],
        public_ip=free_address(POOL, taken_addresses(backend)),
    )
    backend.database.put(address)
    return {
        "AllocationId": address.id,
        "PublicIp": address.public_ip,
        "Domain": "vpc",
        "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": address.region,
    }


def associate_address(backend: Backend, call: Call) -> Mapping[str, Any]:
    address, instance = _named(backend, call), _instance(backend, call)
    private = call.params.get("PrivateIpAddress") or instance.private_ip
    if private != instance.private_ip:
        raise invalid(f"{private} is not an address of the network interface {instance.interface_id}")
    if instance.state not in ("running", "stopping", "stopped"):
        raise AwsError(
            "IncorrectInstanceState",
            f"The {instance.state} instance '{instance.id}' is not in a valid state for this operation.",
        )
    if address.instance_id == instance.id:
        return {"AssociationId": address.association_id}
    if address.nat_gateway_id or (address.instance_id and call.params.get("AllowReassociation") is False):
        raise AwsError(
            "Resource.AlreadyAssociated",
            f"resource {address.id} is already associated with associate-id {address.association_id}",
        )
    for other in (address, *_of_instance(backend, instance)):
        _disassociate(backend, other)
    made = replace(address, instance_id=instance.id, association_id=new_id("eipassoc"))
    backend.database.put(made)
    backend.database.put(replace(backend.database.instances[instance.id], elastic_ip=made.public_ip))
    backend.submit_later(instance.id, jobs.set_addresses, instance.id)
    return {"AssociationId": made.association_id}


def disassociate_address(backend: Backend, call: Call) -> Mapping[str, Any]:
    association, public_ip = call.params.get("AssociationId"), call.params.get("PublicIp")
    if not association and not public_ip:
        raise missing("AssociationId")
    for address in _own(backend, call):
        if address.nat_gateway_id and association == address.association_id:
            text = f"You do not have permission to disassociate {address.public_ip} from {address.nat_gateway_id}"
            raise AwsError("AuthFailure", text)
        if address.association_id and (address.association_id == association or address.public_ip == public_ip):
            _disassociate(backend, address)
            return {}
    if association:
        raise AwsError("InvalidAssociationID.NotFound", f"The association ID '{association}' does not exist")
    _named(backend, call)
    return {}


def _disassociate(backend: Backend, address: Address) -> None:
    instance = backend.database.instances.get(address.instance_id or "")
    backend.database.put(replace(address, instance_id=None, association_id=""))
    if instance is not None:
        backend.database.put(replace(instance, elastic_ip=""))
        backend.submit_later(instance.id, jobs.set_addresses, instance.id)


def release_address(backend: Backend, call: Call) -> Mapping[str, Any]:
    address = _named(backend, call)
    if call.params.get("NetworkBorderGroup", address.region) != address.region:
        raise _address_not_found(address.public_ip)
    if address.instance_id or address.nat_gateway_id:
        raise AwsError("InvalidIPAddress.InUse", f"Address {address.public_ip} is in use.")
    backend.database.remove(address)
    return {}


def describe_addresses(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = _own(backend, call)
    ids, ips = call.params.get("AllocationIds", []), call.params.get("PublicIps", [])
    for identifier in ids:
        _find(rows, identifier)
    for ip in ips:
        if ip not in {row.public_ip for row in rows}:
            raise _address_not_found(ip)
    rows = [row for row in rows if not (ids or ips) or row.id in ids or row.public_ip in ips]
    getters = AnswerFilters("DescribeAddresses", partial(_to_api, backend))
    shown, _ = filters.page(rows, call.params, getters, ids="AllocationIds")
    return {"Addresses": [_to_api(backend, row) for row in shown]}


def _to_api(backend: Backend, address: Address) -> dict[str, Any]:
    described = {
        "AllocationId": address.id,
        "PublicIp": address.public_ip,
        "Domain": "vpc",
        "PublicIpv4Pool": "amazon",
        "NetworkBorderGroup": address.region,
        "Tags": tagging.to_api(address.tags),
    }
    if gateway := backend.database.nat_gateways.get(address.nat_gateway_id):
        return {
            **described,
            "AssociationId": address.association_id,
            "NetworkInterfaceId": gateway.interface_id,
            "NetworkInterfaceOwnerId": gateway.account,
            "PrivateIpAddress": gateway.private_ip,
        }
    instance = backend.database.instances.get(address.instance_id or "")
    if instance is None:
        return described
    return {
        **described,
        "AssociationId": address.association_id,
        "InstanceId": instance.id,
        "NetworkInterfaceId": instance.interface_id,
        "NetworkInterfaceOwnerId": instance.account,
        "PrivateIpAddress": instance.private_ip,
    }


def _own(backend: Backend, call: Call) -> list[Address]:
    return backend.database.addresses.owned(call.account, call.region)


def _of_instance(backend: Backend, instance: Instance) -> list[Address]:
    return [address for address in backend.database.addresses if address.instance_id == instance.id]


def _named(backend: Backend, call: Call) -> Address:
    """Return the address that a request names by its allocation or, as in the old days, by itself."""
    rows = _own(backend, call)
    if identifier := call.params.get("AllocationId"):
        return _find(rows, identifier)
    public_ip = call.params.get("PublicIp")
    if not public_ip:
        raise missing("AllocationId")
    for row in rows:
        if row.public_ip == public_ip:
            return row
    raise _address_not_found(public_ip)


def _find(rows: list[Address], identifier: str) -> Address:
    for row in rows:
        if row.id == identifier:
            return row
    raise AwsError("InvalidAllocationID.NotFound", f"The allocation ID '{identifier}' does not exist")


def _address_not_found(address: str) -> AwsError:
    return AwsError("InvalidAddress.NotFound", f"Address '{address}' not found.")


def _instance(backend: Backend, call: Call) -> Instance:
    identifier, interface = call.params.get("InstanceId"), call.params.get("NetworkInterfaceId")
    if identifier and interface:
        raise conflicting("You may specify an instance ID or a network interface ID, but not both")
    if identifier:
        return lookup.instance(backend, call, identifier)
    if not interface:
        raise missing("InstanceId")
    for instance in backend.database.instances.owned(call.account, call.region):
        if instance.interface_id == interface and instance.state != "terminated":
            return instance
    raise not_found("eni", [interface])
