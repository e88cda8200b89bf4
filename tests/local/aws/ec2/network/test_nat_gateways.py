"""NAT gateways: their states, their addresses, and the routes that name them."""

from __future__ import annotations

from typing import Any

from imagepipe.local.aws.faults.faults import Fault
from tests.local.aws.harness import Cloud, refused, running, until


def subnet(ec2: Any) -> str:
    return str(ec2.describe_subnets()["Subnets"][0]["SubnetId"])


def allocation(ec2: Any) -> str:
    return str(ec2.allocate_address(Domain="vpc")["AllocationId"])


def create(ec2: Any, **more: Any) -> dict[str, Any]:
    given = {"SubnetId": subnet(ec2), **more}
    if more.get("ConnectivityType") != "private" and "AllocationId" not in more:
        given["AllocationId"] = allocation(ec2)
    return dict(ec2.create_nat_gateway(**given)["NatGateway"])


def gateway(ec2: Any, identifier: str) -> dict[str, Any]:
    [found] = ec2.describe_nat_gateways(NatGatewayIds=[identifier])["NatGateways"]
    return dict(found)


def in_state(ec2: Any, identifier: str, state: str) -> dict[str, Any]:
    until(lambda: gateway(ec2, identifier)["State"] == state)
    return gateway(ec2, identifier)


def test_a_gateway_goes_from_pending_to_available_and_from_deleting_to_deleted(cloud: Cloud, ec2: Any) -> None:
    queues = cloud.gateway.backend.job_queues
    queues.set_delay("nat-gateway", 60)
    address = allocation(ec2)
    tags = [{"ResourceType": "natgateway", "Tags": [{"Key": "team", "Value": "web"}]}]
    made = create(ec2, AllocationId=address, TagSpecifications=tags)
    assert (made["State"], made["ConnectivityType"]) == ("pending", "public")
    queues.set_delay("nat-gateway", 0)
    found = in_state(ec2, made["NatGatewayId"], "available")
    [shown] = ec2.describe_addresses(AllocationIds=[address])["Addresses"]
    [own] = found["NatGatewayAddresses"]
    assert (own["AllocationId"], own["PublicIp"], own["AssociationId"]) == (
        address,
        shown["PublicIp"],
        shown["AssociationId"],
    )
    assert shown["NetworkInterfaceId"] == own["NetworkInterfaceId"]
    assert found["Tags"] == [{"Key": "team", "Value": "web"}]
    queues.set_delay("nat-gateway", 60)
    ec2.delete_nat_gateway(NatGatewayId=made["NatGatewayId"])
    assert gateway(ec2, made["NatGatewayId"])["State"] == "deleting"
    queues.set_delay("nat-gateway", 0)
    assert in_state(ec2, made["NatGatewayId"], "deleted")["DeleteTime"]
    ec2.release_address(AllocationId=address)


def test_a_deleted_gateway_is_described_for_an_hour(cloud: Cloud, ec2: Any) -> None:
    made = create(ec2, ConnectivityType="private")["NatGatewayId"]
    ec2.delete_nat_gateway(NatGatewayId=made)
    in_state(ec2, made, "deleted")
    cloud.gateway.backend.clock.advance(3700)
    assert ec2.describe_nat_gateways()["NatGateways"] == []
    with refused("NatGatewayNotFound"):
        ec2.describe_nat_gateways(NatGatewayIds=[made])


def test_a_private_gateway_has_no_public_address(ec2: Any) -> None:
    made = create(ec2, ConnectivityType="private")
    [address] = in_state(ec2, made["NatGatewayId"], "available")["NatGatewayAddresses"]
    assert "PublicIp" not in address
    assert address["PrivateIp"].startswith("127.42.")


def test_the_address_of_a_gateway_is_used_by_nothing_else(ec2: Any) -> None:
    address = allocation(ec2)
    first = create(ec2, AllocationId=address)["NatGatewayId"]
    in_state(ec2, first, "available")
    second = create(ec2, AllocationId=address)["NatGatewayId"]
    assert in_state(ec2, second, "failed")["FailureCode"] == "Resource.AlreadyAssociated"
    with refused("Resource.AlreadyAssociated"):
        ec2.associate_address(AllocationId=address, InstanceId=running(ec2))
    with refused("InvalidIPAddress.InUse"):
        ec2.release_address(AllocationId=address)
    [shown] = ec2.describe_addresses(AllocationIds=[address])["Addresses"]
    with refused("AuthFailure"):
        ec2.disassociate_address(AssociationId=shown["AssociationId"])


def test_a_gateway_fails_in_a_network_without_an_internet_gateway(ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    inside = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    address = allocation(ec2)
    made = create(ec2, SubnetId=inside, AllocationId=address)["NatGatewayId"]
    found = in_state(ec2, made, "failed")
    assert (found["FailureCode"], found["FailureMessage"]) == (
        "Gateway.NotAttached",
        f"Network {vpc} has no Internet gateway attached",
    )
    ec2.release_address(AllocationId=address)
    private = create(ec2, SubnetId=inside, ConnectivityType="private", PrivateIpAddress="10.0.0.9")["NatGatewayId"]
    assert in_state(ec2, private, "available")["NatGatewayAddresses"][0]["PrivateIp"] == "10.0.0.9"


def test_routes_lead_to_a_gateway_and_its_network_cannot_be_deleted(ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    inside = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    made = create(ec2, SubnetId=inside, ConnectivityType="private")["NatGatewayId"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=made)
    [found] = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"]
    assert made in [route.get("NatGatewayId") for route in found["Routes"]]
    with refused("InvalidNatGatewayID.NotFound"):
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.9.0.0/16", NatGatewayId="nat-0123456789abcdef0")
    with refused("DependencyViolation"):
        ec2.delete_subnet(SubnetId=inside)
    ec2.delete_nat_gateway(NatGatewayId=made)
    in_state(ec2, made, "deleted")
    ec2.delete_route_table(RouteTableId=table)
    ec2.delete_subnet(SubnetId=inside)
    ec2.delete_vpc(VpcId=vpc)


def test_gateways_are_found_by_their_filters_and_tags(ec2: Any) -> None:
    first = create(ec2, ConnectivityType="private")["NatGatewayId"]
    in_state(ec2, first, "available")
    ec2.create_tags(Resources=[first], Tags=[{"Key": "team", "Value": "web"}])

    def found(name: str, value: str) -> list[str]:
        filters = [{"Name": name, "Values": [value]}]
        return [row["NatGatewayId"] for row in ec2.describe_nat_gateways(Filter=filters)["NatGateways"]]

    assert found("state", "available") == found("tag:team", "web") == found("subnet-id", subnet(ec2)) == [first]
    assert found("state", "deleted") == []


def test_a_gateway_is_the_same_for_the_same_client_token(ec2: Any) -> None:
    made = [create(ec2, ConnectivityType="private", ClientToken="once")["NatGatewayId"] for _ in range(2)]
    assert made[0] == made[1]


def test_a_gateway_of_a_process_that_died_is_finished_by_the_next(cloud: Cloud, ec2: Any) -> None:
    cloud.gateway.backend.faults.add(Fault(effect="hang", action="CreateNatGateway"))
    made = create(ec2, ConnectivityType="private")["NatGatewayId"]
    assert gateway(ec2, made)["State"] == "pending"
    cloud.restart()
    in_state(cloud.client(), made, "available")
