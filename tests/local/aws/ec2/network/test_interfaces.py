"""An instance's addresses and names: one answer, whoever is asked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import Cloud, running

PARTS = {"us-east-1": ("ec2.internal", "compute-1"), "eu-west-1": ("eu-west-1.compute.internal", "eu-west-1.compute")}


def name_public_addresses(ec2: Any) -> None:
    """Switch DNS host names on in the default VPC."""
    for vpc in ec2.describe_vpcs()["Vpcs"]:
        ec2.modify_vpc_attribute(VpcId=vpc["VpcId"], EnableDnsHostnames={"Value": True})


@pytest.mark.parametrize("region", PARTS)
def test_the_api_and_the_metadata_service_agree_on_addresses_and_names(cloud: Cloud, region: str) -> None:
    ec2 = cloud.client("ec2", region=region)
    name_public_addresses(ec2)
    made = running(ec2)
    [reservation] = ec2.describe_instances(InstanceIds=[made])["Reservations"]
    [described] = reservation["Instances"]
    [interface] = described["NetworkInterfaces"]
    values = cloud.driver.machines[made].metadata.values
    mac = interface["MacAddress"]
    own = {path.rpartition(f"{mac}/")[2]: value for path, value in values.items() if path.startswith("network/")}
    private, public = PARTS[region]
    assert values["mac"] == own["mac"] == mac
    assert described["PrivateDnsName"] == f"ip-{described['PrivateIpAddress'].replace('.', '-')}.{private}"
    assert described["PublicDnsName"] == f"ec2-{described['PublicIpAddress'].replace('.', '-')}.{public}.amazonaws.com"
    for name in ("hostname", "local-hostname"):
        assert values[name] == described["PrivateDnsName"]
    assert own["local-hostname"] == interface["PrivateDnsName"] == described["PrivateDnsName"]
    assert interface["PrivateIpAddresses"][0]["PrivateDnsName"] == described["PrivateDnsName"]
    assert values["public-hostname"] == own["public-hostname"] == described["PublicDnsName"]
    assert interface["Association"]["PublicDnsName"] == described["PublicDnsName"]
    assert values["local-ipv4"] == own["local-ipv4s"] == described["PrivateIpAddress"]
    assert values["public-ipv4"] == own["public-ipv4s"] == described["PublicIpAddress"]
    assert own["interface-id"] == interface["NetworkInterfaceId"]
    assert (own["subnet-id"], own["vpc-id"]) == (described["SubnetId"], described["VpcId"])
    assert own["security-group-ids"] == described["SecurityGroups"][0]["GroupId"]
    assert own["security-groups"] == values["security-groups"] == described["SecurityGroups"][0]["GroupName"]
    assert own["owner-id"] == reservation["OwnerId"]


@pytest.mark.parametrize(("name", "field"), [("private-dns-name", "PrivateDnsName"), ("dns-name", "PublicDnsName")])
def test_an_instance_is_found_by_its_names(ec2: Any, name: str, field: str) -> None:
    name_public_addresses(ec2)
    made = running(ec2)
    running(ec2)
    described = ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]
    found = ec2.describe_instances(Filters=[{"Name": name, "Values": [described[field]]}])["Reservations"]
    assert [row["InstanceId"] for each in found for row in each["Instances"]] == [made]
