"""Place the instances of a launch in the network: subnet, groups, addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.moto.vpcs import POOL, Subnet, free_address, free_private_ip
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, unsupported
from imagepipe.local.aws.protocol.query import Call


@dataclass(frozen=True, slots=True)
class Place:
    """An instance's place in the network."""

    subnet: Subnet
    group_ids: tuple[str, ...]
    has_public_ip: bool
    private_ip: str | None


def resolve(backend: Backend, call: Call) -> Place:
    """Find the place that a launch asks for. Raises AwsError."""
    interfaces = call.params.get("NetworkInterfaces", [])
    if len(interfaces) > 1:
        raise unsupported("The local cloud gives an instance one network interface")
    interface: Mapping[str, Any] = interfaces[0] if interfaces else {}
    if interface.get("NetworkInterfaceId"):
        raise unsupported("The local cloud makes the network interface itself; name a subnet instead")
    if interface and (
        call.params.get("SubnetId") or call.params.get("SecurityGroupIds") or call.params.get("SecurityGroups")
    ):
        raise conflicting(
            "Network interfaces and an instance-level subnet ID or security groups may not be specified on the "
            "same request"
        )
    subnet_id = interface.get("SubnetId") or call.params.get("SubnetId")
    zone = call.params.get("Placement", {}).get("AvailabilityZone") or None  # Packer sends an empty one
    if subnet_id:
        subnet = backend.network.subnet(call.account, call.region, str(subnet_id))
    else:
        if backend.network.default_vpc_id(call.account, call.region) is None:
            raise AwsError("VPCIdNotSpecified", "No default VPC for this user")
        subnet = backend.network.default_subnet(call.account, call.region, zone)
    if zone and zone != subnet.zone:
        raise conflicting(f"The subnet {subnet.id} is in {subnet.zone}, not in {zone}")
    names = call.params.get("SecurityGroups", [])
    identifiers = interface.get("Groups") or call.params.get("SecurityGroupIds") or []
    return Place(
        subnet=subnet,
        group_ids=_groups(backend, call, subnet, identifiers, names),
        has_public_ip=bool(interface.get("AssociatePublicIpAddress", subnet.maps_public_ip)),
        private_ip=interface.get("PrivateIpAddress") or call.params.get("PrivateIpAddress"),
    )


def _groups(
    backend: Backend, call: Call, subnet: Subnet, identifiers: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    here = {
        group.name: group
        for group in backend.database.groups.owned(call.account, call.region)
        if group.vpc_id == subnet.vpc_id
    }
    groups = [lookup.group(backend, call, identifier) for identifier in identifiers]
    for name in names:
        if name not in here:
            raise AwsError(
                "InvalidGroup.NotFound", f"The security group '{name}' does not exist in VPC '{subnet.vpc_id}'"
            )
        groups.append(here[name])
    for group in groups:
        if group.vpc_id != subnet.vpc_id:
            raise AwsError(
                "InvalidParameter", f"Security group {group.id} and subnet {subnet.id} belong to different networks."
            )
    return tuple(dict.fromkeys(group.id for group in groups)) or (here["default"].id,)


def taken_addresses(backend: Backend) -> list[str]:
    """List the loopback addresses of instances and NAT gateways, and the Elastic IP addresses."""
    living = [instance.address for instance in backend.database.instances if instance.state != "terminated"]
    gateways = [gateway.private_ip for gateway in backend.database.nat_gateways if gateway.deleted is None]
    return [*living, *gateways, *(address.public_ip for address in backend.database.addresses)]


def addresses(backend: Backend, place: Place) -> tuple[str, str]:
    """Choose the instance's loopback address and its private address; they are the same in a subnet of the pool."""
    living = [instance for instance in backend.database.instances if instance.state != "terminated"]
    taken = taken_addresses(backend)
    private = [instance.private_ip for instance in living if instance.subnet_id == place.subnet.id]
    private += [row.private_ip for row in backend.database.nat_gateways if row.subnet_id == place.subnet.id]
    wanted = place.private_ip
    if wanted and (wanted in private or (place.subnet.cidr.subnet_of(POOL) and wanted in taken)):
        raise AwsError("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    if place.subnet.cidr.subnet_of(POOL):
        address = wanted or free_address(place.subnet.cidr, taken)
        return address, address
    return free_address(POOL, taken), wanted or free_private_ip(place.subnet.cidr, private)
