"""Elastic IP addresses: theirs is the way to one instance after another."""

from __future__ import annotations

from typing import Any

from tests.local.aws.harness import Cloud, instance, refused, running, state, stopped, until


def further(cloud: Cloud, instance_id: str) -> tuple[str, ...]:
    return cloud.driver.machines[instance_id].further_addresses


def public(ec2: Any, instance_id: str) -> str | None:
    found: str | None = instance(ec2, instance_id).get("PublicIpAddress")
    return found


def test_an_allocated_address_is_nobody_elses(ec2: Any) -> None:
    own = instance(ec2, running(ec2))["PrivateIpAddress"]
    made = [ec2.allocate_address(Domain="vpc") for _ in range(3)]
    addresses = {each["PublicIp"] for each in made} | {own}
    assert len(addresses) == 4
    assert all(address.startswith("127.42.") for address in addresses)
    assert instance(ec2, running(ec2))["PrivateIpAddress"] not in addresses
    assert [each["PublicIp"] for each in ec2.describe_addresses()["Addresses"]] == [each["PublicIp"] for each in made]


def test_an_associated_address_is_the_machines_too_until_it_is_disassociated(cloud: Cloud, ec2: Any) -> None:
    made, address = running(ec2), ec2.allocate_address(Domain="vpc")
    own = public(ec2, made)
    association = ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=made)["AssociationId"]
    assert ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=made)["AssociationId"] == association
    until(lambda: further(cloud, made) == (address["PublicIp"],))
    found = instance(ec2, made)
    assert found["PublicIpAddress"] == address["PublicIp"]
    assert found["PrivateIpAddress"] == own
    shown = found["NetworkInterfaces"][0]["Association"]
    assert (shown["PublicIp"], shown["IpOwnerId"]) == (address["PublicIp"], found["NetworkInterfaces"][0]["OwnerId"])
    [described] = ec2.describe_addresses(Filters=[{"Name": "instance-id", "Values": [made]}])["Addresses"]
    assert (described["AssociationId"], described["PrivateIpAddress"]) == (association, own)
    until(lambda: cloud.driver.machines[made].metadata.values["public-ipv4"] == address["PublicIp"])
    with refused("InvalidIPAddress.InUse"):
        ec2.release_address(AllocationId=address["AllocationId"])
    ec2.disassociate_address(AssociationId=association)
    until(lambda: further(cloud, made) == ())
    assert public(ec2, made) == own
    ec2.release_address(AllocationId=address["AllocationId"])
    assert ec2.describe_addresses()["Addresses"] == []


def test_an_address_moves_to_another_instance_and_takes_the_place_of_its_address(cloud: Cloud, ec2: Any) -> None:
    first, second = running(ec2), running(ec2)
    a, b = (ec2.allocate_address(Domain="vpc", TagSpecifications=tags(name)) for name in ("a", "b"))
    ec2.associate_address(AllocationId=a["AllocationId"], InstanceId=first)
    interface = instance(ec2, second)["NetworkInterfaces"][0]["NetworkInterfaceId"]
    ec2.associate_address(AllocationId=b["AllocationId"], NetworkInterfaceId=interface)
    ec2.associate_address(AllocationId=a["AllocationId"], InstanceId=second)
    until(lambda: (further(cloud, first), further(cloud, second)) == ((), (a["PublicIp"],)))
    [free] = ec2.describe_addresses(Filters=[{"Name": "tag:Name", "Values": ["b"]}])["Addresses"]
    assert "AssociationId" not in free


def tags(name: str) -> list[dict[str, Any]]:
    return [{"ResourceType": "elastic-ip", "Tags": [{"Key": "Name", "Value": name}]}]


def test_an_address_stays_with_a_stopped_instance_and_leaves_a_terminated_one(cloud: Cloud) -> None:
    ec2 = cloud.client()
    made, address = stopped(ec2), ec2.allocate_address(Domain="vpc")
    ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=made)
    assert public(ec2, made) == address["PublicIp"]
    cloud.restart()
    ec2 = cloud.client()
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    assert further(cloud, made) == (address["PublicIp"],)
    ec2.terminate_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "terminated")
    [left] = ec2.describe_addresses()["Addresses"]
    assert "InstanceId" not in left


def test_an_address_is_its_accounts_and_regions_own(cloud: Cloud, ec2: Any) -> None:
    address = ec2.allocate_address(Domain="vpc")
    for other in (cloud.client(other=True), cloud.client(region="us-west-2")):
        assert other.describe_addresses()["Addresses"] == []
        with refused("InvalidAllocationID.NotFound"):
            other.release_address(AllocationId=address["AllocationId"])
