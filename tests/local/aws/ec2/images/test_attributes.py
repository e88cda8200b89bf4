"""What there is to look at when a machine does not answer: checks, routes, console; and networks of one's own."""

from __future__ import annotations

import time
from typing import Any

import pytest

from imagepipe.local.aws.faults.faults import Fault
from tests.local.aws.harness import Cloud, instance, launch, refused, running


def checks(ec2: Any, instance_id: str) -> tuple[str, str]:
    [status] = ec2.describe_instance_status(InstanceIds=[instance_id])["InstanceStatuses"]
    return status["SystemStatus"]["Status"], status["InstanceStatus"]["Status"]


def test_checks_pass_while_there_is_a_machine_and_fail_without(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    assert checks(ec2, made) == ("ok", "ok")
    del cloud.driver.machines[made]
    assert checks(ec2, made) == ("impaired", "impaired")


def test_an_instance_can_be_made_to_fail_its_checks(cloud: Cloud, ec2: Any) -> None:
    cloud.gateway.backend.faults.add(Fault(effect="impair", action="RunInstances", times=1))
    assert checks(ec2, running(ec2)) == ("impaired", "impaired")
    assert checks(ec2, running(ec2)) == ("ok", "ok")


def test_the_default_network_leads_to_an_internet_gateway(ec2: Any) -> None:
    made = instance(ec2, launch(ec2))
    wanted = [
        {"Name": "vpc-id", "Values": [made["VpcId"]]},
        {"Name": "association.main", "Values": ["true"]},
    ]
    [table] = ec2.describe_route_tables(Filters=wanted)["RouteTables"]
    [out] = [route for route in table["Routes"] if route.get("DestinationCidrBlock") == "0.0.0.0/0"]
    assert out["GatewayId"].startswith("igw-")
    assert out["State"] == "active"


@pytest.mark.parametrize("zone", ["us-east-1a", "us-east-1b"])
def test_a_created_subnet_is_found_by_its_tags_and_launched_in(ec2: Any, zone: str) -> None:
    [vpc] = ec2.describe_vpcs()["Vpcs"]
    made = ec2.create_subnet(
        VpcId=vpc["VpcId"],
        CidrBlock="127.42.200.0/24",
        AvailabilityZone=zone,
        TagSpecifications=[{"ResourceType": "subnet", "Tags": [{"Key": "tier", "Value": "bake"}]}],
    )["Subnet"]["SubnetId"]
    [found] = ec2.describe_subnets(Filters=[{"Name": "tag:tier", "Values": ["bake"]}])["Subnets"]
    assert (found["SubnetId"], found["AvailabilityZone"]) == (made, zone)
    launched = instance(ec2, running(ec2, SubnetId=made))
    assert launched["PrivateIpAddress"].startswith("127.42.200.")
    assert launched["Placement"]["AvailabilityZone"] == zone
    ec2.delete_tags(Resources=[made])
    assert ec2.describe_subnets(Filters=[{"Name": "tag:tier", "Values": ["bake"]}])["Subnets"] == []


def test_the_newest_console_output_can_be_asked_for(ec2: Any) -> None:
    made = running(ec2)
    assert made in ec2.get_console_output(InstanceId=made, Latest=True)["Output"]


@pytest.mark.parametrize(
    "name", ["t3.micro", "t3.small", "t3a.small", "t4g.small", "m5.large", "m7g.medium", "c5.large", "c5d.large"]
)
def test_instance_types_describe_their_limits(ec2: Any, name: str) -> None:
    begun = time.monotonic()
    [kind] = ec2.describe_instance_types(InstanceTypes=[name])["InstanceTypes"]
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [name]}]
    )["InstanceTypeOfferings"]
    assert time.monotonic() - begun < 5
    is_arm = name.split(".")[0].endswith("g")
    assert kind["ProcessorInfo"]["SupportedArchitectures"] == (["arm64"] if is_arm else ["x86_64"])
    assert kind["NetworkInfo"]["EnaSupport"] in ("required", "supported")
    assert kind["InstanceStorageSupported"] == (name == "c5d.large")
    assert offered


@pytest.mark.parametrize(
    ("name", "value"),
    [("HttpTokens", "perhaps"), ("HttpEndpoint", "ajar"), ("HttpPutResponseHopLimit", 65)],
)
def test_metadata_options_that_cannot_be_are_refused(ec2: Any, name: str, value: Any) -> None:
    with refused("InvalidParameterValue"):
        launch(ec2, MetadataOptions={name: value})


def test_metadata_options_are_kept_and_described(cloud: Cloud, ec2: Any) -> None:
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 3, "HttpEndpoint": "enabled"}
    made = launch(ec2, MetadataOptions={**options, "InstanceMetadataTags": "enabled"})
    cloud.restart()
    described = instance(cloud.client(), made)["MetadataOptions"]
    assert {name: described[name] for name in options} == options
    assert described["InstanceMetadataTags"] == "enabled"


@pytest.mark.parametrize("by", ["Name", "Arn"])
def test_an_instance_profile_that_is_there_is_the_instances(cloud: Cloud, by: str) -> None:
    profile = cloud.client("iam").create_instance_profile(InstanceProfileName="baker")["InstanceProfile"]
    cloud.restart()
    ec2 = cloud.client()
    given = profile["InstanceProfileName"] if by == "Name" else profile["Arn"]
    made = launch(ec2, IamInstanceProfile={by: given})
    assert instance(ec2, made)["IamInstanceProfile"]["Arn"] == profile["Arn"]
    with refused("InvalidParameterValue"):
        launch(cloud.client(other=True), IamInstanceProfile={by: given})


def test_an_interface_says_where_and_whether_in_public(ec2: Any) -> None:
    subnet = ec2.describe_subnets()["Subnets"][1]["SubnetId"]
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    made = running(
        ec2,
        NetworkInterfaces=[
            {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group], "AssociatePublicIpAddress": False}
        ],
    )
    found = instance(ec2, made)
    assert (found["SubnetId"], found["SecurityGroups"][0]["GroupId"]) == (subnet, group)
    assert "PublicIpAddress" not in found
