"""The network side of a region: moto's VPCs and subnets, laid out over loopback addresses.

moto's default VPC is 172.31.0.0/16. Ours is 127.42.0.0/16 in every region, so that an instance's own address is
one that this computer can reach without any routing. One pool serves all regions.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Iterable, Mapping
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.moto.catalogue import regions, zones
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.ids import check_id, not_found

POOL = ipaddress.IPv4Network("127.42.0.0/16")
RESERVED = 4  # the first addresses of a subnet are EC2's own; the last is broadcast
SSH_PORT = 22
SETTLED = "imagepipe_settled"
"""Attribute that marks moto's model of a region as complete: it has its default VPC."""


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet of a VPC."""

    id: str
    vpc_id: str
    zone: str
    cidr: ipaddress.IPv4Network
    maps_public_ip: bool
    is_default: bool


class Network:
    """Regions, VPCs and subnets of the local cloud."""

    def __init__(self, moto: Moto) -> None:
        self._moto = moto

    def prepare(self, account: str, region: str) -> None:
        """Give the region its default VPC if it has none yet. Raises AwsError for an unknown region."""
        if region not in regions():
            raise AwsError("AuthFailure", f"Credential should be scoped to a valid region, not '{region}'.", status=401)
        ec2 = self._ec2(account, region)
        if hasattr(ec2, SETTLED):  # so that most requests do not wait for moto's lock
            return
        with self._moto.lock("ec2"):
            if not hasattr(ec2, SETTLED):
                _create_default_vpc(ec2)
                _connect_to_internet(ec2)
                setattr(ec2, SETTLED, True)
                self._moto.save("ec2", account, region)

    def vpc_ids(self, account: str, region: str) -> list[str]:
        return list(self._ec2(account, region).vpcs)

    def has_dns_host_names(self, account: str, region: str, vpc_id: str) -> bool:
        """Tell if instances of a VPC have public DNS names."""
        vpc = self._ec2(account, region).vpcs.get(vpc_id)
        return vpc is not None and _true(vpc.enable_dns_hostnames)

    def default_vpc_id(self, account: str, region: str) -> str | None:
        vpc = self._ec2(account, region).get_default_vpc()
        return str(vpc.id) if vpc else None

    def subnets(self, account: str, region: str) -> list[Subnet]:
        return [
            Subnet(
                id=subnet.id,
                vpc_id=subnet.vpc_id,
                zone=subnet.availability_zone,
                cidr=ipaddress.IPv4Network(subnet.cidr_block),
                maps_public_ip=_true(subnet.map_public_ip_on_launch),
                is_default=_true(subnet.default_for_az),
            )
            for subnet in self._ec2(account, region).describe_subnets()
        ]

    def subnet(self, account: str, region: str, subnet_id: str) -> Subnet:
        """Find the subnet of this id. Raises AwsError."""
        check_id("subnet", subnet_id)
        for subnet in self.subnets(account, region):
            if subnet.id == subnet_id:
                return subnet
        raise not_found("subnet", [subnet_id])

    def default_subnet(self, account: str, region: str, zone: str | None) -> Subnet:
        """Find the default subnet of the zone, or of any zone. Raises AwsError."""
        if zone is not None and zone not in zones(region):
            raise invalid(f"Invalid availability zone: [{zone}]")
        for subnet in self.subnets(account, region):
            if subnet.is_default and zone in (None, subnet.zone):
                return subnet
        raise AwsError("MissingInput", f"No default subnet for availability zone: '{zone or region}'.")

    def tags(self, account: str, region: str) -> dict[str, dict[str, str]]:
        """Return the tags of moto's resources, by id."""
        return {key: dict(value) for key, value in self._ec2(account, region).tags.items()}

    def has(self, account: str, region: str, identifier: str) -> bool:
        """Tell if moto keeps a network resource of this id, such as a VPC, a subnet or a route table."""
        ec2 = self._ec2(account, region)
        tables = (
            ec2.vpcs, ec2.internet_gateways, ec2.route_tables, ec2.network_acls, ec2.dhcp_options_sets,
            ec2.nat_gateways, ec2.vpc_end_points, ec2.managed_prefix_lists, *ec2.subnets.values(),
        )  # fmt: skip
        return any(identifier in table for table in tables)

    def has_internet_gateway(self, account: str, region: str, vpc_id: str) -> bool:
        """Tell if an internet gateway is attached to this VPC."""
        gateways = self._ec2(account, region).internet_gateways.values()
        return any(gateway.vpc is not None and gateway.vpc.id == vpc_id for gateway in gateways)

    def add_nat_gateway(self, account: str, region: str, identifier: str, *, subnet_id: str) -> None:
        """Give moto a NAT gateway, so that routes can name it."""
        ec2 = self._ec2(account, region)
        with self._moto.lock("ec2"):
            if identifier not in ec2.nat_gateways:
                made = ec2.create_nat_gateway(subnet_id, "", connectivity_type="private")
                del ec2.nat_gateways[made.id]
                made.id = identifier
                ec2.nat_gateways[identifier] = made
                self._moto.save("ec2", account, region)

    def remove_nat_gateway(self, account: str, region: str, identifier: str) -> None:
        """Remove a NAT gateway from moto. Routes that name it keep its id, as on EC2."""
        ec2 = self._ec2(account, region)
        with self._moto.lock("ec2"):
            gone = ec2.nat_gateways.pop(identifier, None)
            if gone is not None:
                ec2.delete_network_interface(gone._eni.id)
                self._moto.save("ec2", account, region)

    def is_attached(self, account: str, region: str, gateway_id: str) -> bool:
        """Tell if an internet gateway is attached to a VPC."""
        gateway = self._ec2(account, region).internet_gateways.get(gateway_id)
        return gateway is not None and gateway.vpc is not None

    def prefix_list_blocks(self, account: str, region: str, identifier: str) -> list[str]:
        """List the CIDR blocks of a prefix list."""
        found = self._ec2(account, region).managed_prefix_lists.get(identifier)
        versions = list(found.entries.values()) if found else []
        return [str(entry["Cidr"]) for entry in (versions[-1] if versions else ())]

    def set_tags(self, account: str, region: str, identifier: str, tags: Mapping[str, str]) -> None:
        """Give a resource that moto keeps these tags and no others."""
        with self._moto.lock("ec2"):
            ec2 = self._ec2(account, region)
            ec2.tags[identifier].clear()
            ec2.tags[identifier].update(tags)
            self._moto.save("ec2", account, region)

    def _ec2(self, account: str, region: str) -> Any:
        return self._moto.model("ec2", account, region)


def free_address(within: ipaddress.IPv4Network, taken: Iterable[str]) -> str:
    """Find an address of the pool that no instance of this store has, and no SSH server listens on.

    Starts at a random one: two stores on one computer do not know of each other. Raises AwsError.
    """
    used = set(taken)
    hosts = within if within.subnet_of(POOL) else POOL
    first, size = int(hosts.network_address) + RESERVED, hosts.num_addresses - RESERVED - 1
    start = random.randrange(size)  # noqa: S311  # not a secret
    for step in range(size):
        address = str(ipaddress.IPv4Address(first + (start + step) % size))
        if address not in used and _is_silent(address):
            return address
    raise AwsError("InsufficientFreeAddressesInSubnet", f"No free address is left in {within}")


def free_private_ip(within: ipaddress.IPv4Network, taken: Iterable[str]) -> str:
    """Find the first free address of a subnet outside the pool. Only the API shows it; nothing listens on it."""
    used = set(taken)
    for address in list(within)[RESERVED:-1]:
        if str(address) not in used:
            return str(address)
    raise AwsError("InsufficientFreeAddressesInSubnet", f"No free address is left in {within}")


def _is_silent(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, SSH_PORT))
        except PermissionError:  # not root: ports below 1024 cannot be tried
            return True
        except OSError:
            return False
    return True


def _create_default_vpc(ec2: Any) -> None:
    for subnet in ec2.describe_subnets():
        ec2.delete_subnet(subnet.id)
    old = ec2.get_default_vpc()
    if old is not None:
        ec2.delete_vpc(old.id)
    vpc = ec2.create_vpc(str(POOL), is_default=True)
    ec2.default_vpc = vpc
    ec2.modify_vpc_attribute(vpc.id, "enable_dns_hostnames", "false")  # names of the local cloud do not resolve
    for zone in ec2.describe_availability_zones():
        ec2.create_default_subnet(zone.name)


def _connect_to_internet(ec2: Any) -> None:
    """Route the default VPC's traffic to an internet gateway (VPC user guide, "Default VPC components")."""
    vpc = ec2.get_default_vpc()
    [main] = ec2.describe_route_tables(filters={"vpc-id": [vpc.id], "association.main": ["true"]})
    gateway = ec2.create_internet_gateway()
    ec2.attach_internet_gateway(gateway.id, vpc.id)
    ec2.create_route(main.id, "0.0.0.0/0", gateway_id=gateway.id)


def _true(value: object) -> bool:
    """Convert a boolean of moto's, which can be a string."""
    return str(value).lower() == "true"
