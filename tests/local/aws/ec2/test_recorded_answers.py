"""Answers have the members that the real EC2 returned, and leave out those that it left out.

Source of each fact: the answers of EC2 that Cloud Custodian's tests recorded between 2016 and 2026
(github.com/cloud-custodian/cloud-custodian, tests/data/placebo, commit df800e9e), unless a comment names another.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.local.aws.harness import (
    Cloud,
    available,
    image,
    instance,
    launch,
    refused,
    register,
    root_volume,
    running,
    snapshot_of,
    state,
    stopped,
    until,
)

INSTANCE = {
    "MaintenanceOptions": {"AutoRecovery": "default", "RebootMigration": "default"},
    "NetworkPerformanceOptions": {"BandwidthWeighting": "default"},
    "Operator": {"Managed": False},
}


@pytest.mark.parametrize("member", INSTANCE)
def test_an_instance_has_the_members_that_ec2_added_lately(member: str, ec2: Any) -> None:
    assert instance(ec2, running(ec2))[member] == INSTANCE[member]


def test_the_zone_of_a_resource_is_also_named_by_its_id(ec2: Any) -> None:
    made = running(ec2)
    found = instance(ec2, made)
    zones = {row["ZoneName"]: row["ZoneId"] for row in ec2.describe_availability_zones()["AvailabilityZones"]}
    zone = zones[found["Placement"]["AvailabilityZone"]]
    assert found["Placement"]["AvailabilityZoneId"] == zone
    assert ec2.describe_volumes()["Volumes"][0]["AvailabilityZoneId"] == zone
    assert ec2.describe_network_interfaces()["NetworkInterfaces"][0]["AvailabilityZoneId"] == zone
    assert ec2.describe_instance_status()["InstanceStatuses"][0]["AvailabilityZoneId"] == zone
    of_zone = [{"Name": "availability-zone-id", "Values": [zone]}]
    assert ec2.describe_instances(Filters=of_zone)["Reservations"]
    assert ec2.describe_volumes(Filters=of_zone)["Volumes"]


def test_no_volume_or_interface_is_managed_by_a_service(ec2: Any) -> None:
    made = running(ec2)
    assert instance(ec2, made)["NetworkInterfaces"][0]["Operator"] == {"Managed": False}
    assert ec2.describe_network_interfaces()["NetworkInterfaces"][0]["Operator"] == {"Managed": False}
    assert ec2.describe_volumes()["Volumes"][0]["Operator"] == {"Managed": False}
    assert instance(ec2, made)["BlockDeviceMappings"][0]["Ebs"]["EbsCardIndex"] == 0


def test_the_answer_to_a_launch_describes_an_instance_that_is_still_pending(ec2: Any) -> None:
    base = ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    [made] = ec2.run_instances(ImageId=base, MinCount=1, MaxCount=1, InstanceType="t3.small")["Instances"]
    assert made["StateReason"] == {"Code": "pending", "Message": "pending"}
    assert made["BlockDeviceMappings"] == []
    assert "PublicIpAddress" not in made
    assert "Association" not in made["NetworkInterfaces"][0]
    assert made["NetworkInterfaces"][0]["Attachment"]["Status"] == "attaching"
    until(lambda: state(ec2, made["InstanceId"]) == "running")
    found = instance(ec2, made["InstanceId"])
    assert "StateReason" not in found
    assert found["BlockDeviceMappings"][0]["DeviceName"] == base_root(ec2, base)
    assert found["PublicIpAddress"]


def base_root(ec2: Any, base: str) -> str:
    return str(image(ec2, base)["RootDeviceName"])


def test_the_reason_of_a_stop_and_of_a_termination_has_its_time(ec2: Any) -> None:
    # Cloud Custodian's filter state-age reads the time from this text.
    made = stopped(ec2)
    pattern = r"User initiated \((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) GMT\)"
    found = re.fullmatch(pattern, instance(ec2, made)["StateTransitionReason"])
    assert found
    assert datetime.strptime(f"{found[1]} +0000", "%Y-%m-%d %H:%M:%S %z") <= datetime.now(UTC)
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    assert instance(ec2, made)["StateTransitionReason"] == ""
    ec2.terminate_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "terminated")
    assert re.fullmatch(pattern, instance(ec2, made)["StateTransitionReason"])


def test_only_types_with_the_intel_interface_show_support_for_it(ec2: Any) -> None:
    # EC2 user guide, "Enhanced networking with the Intel 82599 VF interface", names the types.
    assert "SriovNetSupport" not in instance(ec2, launch(ec2, InstanceType="t3.small"))
    assert instance(ec2, launch(ec2, InstanceType="m4.large"))["SriovNetSupport"] == "simple"


def test_untagged_resources_have_no_member_for_tags(ec2: Any) -> None:
    made = running(ec2)
    snapshot = snapshot_of(ec2, made)
    built = available(ec2, register(ec2, snapshot, "web"))
    template = ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"InstanceType": "t3.small"})[
        "LaunchTemplate"
    ]
    rows = {
        "instance": instance(ec2, made),
        "volume": ec2.describe_volumes()["Volumes"][0],
        "snapshot": ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0],
        "image": image(ec2, built),
        "security group": ec2.describe_security_groups()["SecurityGroups"][0],
        "created group": ec2.create_security_group(GroupName="web", Description="web"),
        "subnet": ec2.describe_subnets()["Subnets"][0],
        "vpc": ec2.describe_vpcs()["Vpcs"][0],
        "template": template,
        "described template": ec2.describe_launch_templates()["LaunchTemplates"][0],
        "created snapshot": ec2.create_snapshot(VolumeId=root_volume(ec2, made)),
        "created volume": ec2.create_volume(AvailabilityZone="us-east-1a", Size=1),
        "copied snapshot": ec2.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=snapshot),
    }
    assert [name for name, row in rows.items() if "Tags" in row] == []


def test_untagged_resources_of_other_kinds_have_an_empty_list_of_tags(ec2: Any) -> None:
    ec2.create_key_pair(KeyName="web")
    running(ec2)
    assert ec2.describe_key_pairs()["KeyPairs"][0]["Tags"] == []
    assert ec2.describe_internet_gateways()["InternetGateways"][0]["Tags"] == []
    assert ec2.describe_route_tables()["RouteTables"][0]["Tags"] == []
    assert ec2.describe_network_acls()["NetworkAcls"][0]["Tags"] == []
    assert ec2.describe_network_interfaces()["NetworkInterfaces"][0]["TagSet"] == []


def test_an_image_without_product_codes_has_no_member_for_them_and_an_instance_an_empty_list(ec2: Any) -> None:
    made = running(ec2)
    assert "ProductCodes" not in image(ec2, instance(ec2, made)["ImageId"])
    assert instance(ec2, made)["ProductCodes"] == []


def test_a_subnet_has_the_members_for_features_that_are_off(ec2: Any) -> None:
    found = ec2.describe_subnets()["Subnets"][0]
    assert (found["EnableDns64"], found["MapCustomerOwnedIpOnLaunch"]) == (False, False)
    assert found["BlockPublicAccessStates"] == {"InternetGatewayBlockMode": "off"}
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]
    [found] = ec2.describe_subnets(SubnetIds=[made["SubnetId"]])["Subnets"]
    assert found["EnableDns64"] is False


def test_a_vpc_without_ipv6_has_no_member_for_it(ec2: Any) -> None:
    assert "Ipv6CidrBlockAssociationSet" not in ec2.describe_vpcs()["Vpcs"][0]


def test_a_route_table_lists_its_propagating_gateways(ec2: Any) -> None:
    assert ec2.describe_route_tables()["RouteTables"][0]["PropagatingVgws"] == []


def test_only_volumes_and_snapshots_have_milliseconds_in_their_times(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    volumes = [
        ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"] for _ in range(3)
    ]  # one time of three may have none by chance
    times = [row["CreateTime"] for row in ec2.describe_volumes(VolumeIds=volumes)["Volumes"]]
    assert any(time.microsecond for time in times)
    assert all(time.microsecond % 1000 == 0 for time in times)
    snapshots = [ec2.create_snapshot(VolumeId=root_volume(ec2, made))["StartTime"] for _ in range(3)]
    assert any(time.microsecond for time in snapshots)
    found = instance(ec2, made)
    assert found["LaunchTime"].microsecond == 0
    assert found["BlockDeviceMappings"][0]["Ebs"]["AttachTime"].microsecond == 0
    of_time = [{"Name": "create-time", "Values": [f"{times[0]:%Y-%m-%dT%H:%M:%S}.{times[0].microsecond // 1000:03}Z"]}]
    assert volumes[0] in [row["VolumeId"] for row in ec2.describe_volumes(Filters=of_time)["Volumes"]]


def test_a_volume_is_attaching_and_detaching_in_the_answers_to_those_requests(ec2: Any) -> None:
    made = stopped(ec2)
    zone = instance(ec2, made)["Placement"]["AvailabilityZone"]
    volume = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    until(lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    answer = ec2.attach_volume(VolumeId=volume, InstanceId=made, Device="/dev/sdf")
    assert (answer["State"], "DeleteOnTermination" in answer) == ("attaching", False)
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]["State"] == "attached"
    answer = ec2.detach_volume(VolumeId=volume)
    assert (answer["State"], "DeleteOnTermination" in answer) == ("detaching", False)
    assert ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"] == []


def test_a_spot_request_is_valid_for_seven_days(ec2: Any) -> None:
    # API reference, RequestSpotInstances, ValidUntil: "the default end date is 7 days from the current date".
    running(ec2, InstanceMarketOptions={"MarketType": "spot"})
    [found] = ec2.describe_spot_instance_requests()["SpotInstanceRequests"]
    assert found["ValidUntil"] - found["CreateTime"] == timedelta(days=7)


def test_the_prefix_lists_of_aws_have_blocks_versions_and_sizes(ec2: Any) -> None:
    blocks = {row["PrefixListName"]: row["Cidrs"] for row in ec2.describe_prefix_lists()["PrefixLists"]}
    assert len(blocks["com.amazonaws.us-east-1.s3"]) > 1
    rows = ec2.describe_managed_prefix_lists()["PrefixLists"]
    assert all(row["MaxEntries"] >= 1 and row["Version"] >= 1 for row in rows)


def test_refusals_have_the_words_of_ec2(ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    made = running(ec2, SubnetId=subnet)
    [gateway] = ec2.describe_internet_gateways()["InternetGateways"]
    identifier = gateway["InternetGatewayId"]
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    with refused("DependencyViolation", match=f"^The subnet '{subnet}' has dependencies and cannot be deleted.$"):
        ec2.delete_subnet(SubnetId=subnet)
    with refused("DependencyViolation", match=f"^The vpc '{vpc}' has dependencies and cannot be deleted.$"):
        ec2.delete_vpc(VpcId=vpc)
    with refused("DependencyViolation", match=f"^The internetGateway '{identifier}' has dependencies and cannot be"):
        ec2.delete_internet_gateway(InternetGatewayId=identifier)
    text = r'the specified rule "peer: 0\.0\.0\.0/0, TCP, from port: 22, to port: 22, ALLOW" already exists'
    with refused("InvalidPermission.Duplicate", match=f"^{text}$"):
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
    with refused("MissingParameter", match="^The request must contain the parameter resourceIdSet$"):
        ec2.create_tags(Resources=[], Tags=[{"Key": "a", "Value": "b"}])
    unknown = "subnet-00000000000000001"
    with refused("InvalidSubnetID.NotFound", match=f"^The subnet ID '{unknown}' does not exist$"):
        ec2.describe_subnets(SubnetIds=[unknown])
    with refused("InvalidSubnetID.NotFound", match=f"^The subnet ID '{unknown}' does not exist$"):
        ec2.delete_subnet(SubnetId=unknown)
    ec2.modify_instance_attribute(InstanceId=made, DisableApiTermination={"Value": True})
    protected = f"^The instance '{made}' may not be terminated. Modify its 'disableApiTermination' instance attribute"
    with refused("OperationNotPermitted", match=protected):
        ec2.terminate_instances(InstanceIds=[made])


UNKNOWN = {
    "internetGateway": ("igw", "describe_internet_gateways", "InternetGatewayIds"),
    "routeTable": ("rtb", "describe_route_tables", "RouteTableIds"),
    "networkAcl": ("acl", "describe_network_acls", "NetworkAclIds"),
    "dhcpOption": ("dopt", "describe_dhcp_options", "DhcpOptionsIds"),
    "subnet": ("subnet", "describe_subnets", "SubnetIds"),
    "vpc": ("vpc", "describe_vpcs", "VpcIds"),
    "networkInterface": ("eni", "describe_network_interfaces", "NetworkInterfaceIds"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_id_is_refused_in_the_words_of_ec2(name: str, ec2: Any) -> None:
    prefix, action, parameter = UNKNOWN[name]
    identifier = f"{prefix}-00000000000000001"
    code, text = f"Invalid{name[0].upper()}{name[1:]}ID.NotFound", f"^The {name} ID '{identifier}' does not exist$"
    with refused(code, match=text):
        getattr(ec2, action)(**{parameter: [identifier]})
    with refused(code, match=text):
        ec2.create_tags(Resources=[identifier], Tags=[{"Key": "a", "Value": "b"}])


@pytest.mark.parametrize(
    ("action", "parameter", "identifier", "code"),
    [
        ("describe_nat_gateways", "NatGatewayIds", "nat-00000000000000001", "NatGatewayNotFound"),
        ("describe_vpc_endpoints", "VpcEndpointIds", "vpce-00000000000000001", "InvalidVpcEndpointId.NotFound"),
        ("describe_managed_prefix_lists", "PrefixListIds", "pl-00000000000000001", "InvalidPrefixListID.NotFound"),
        ("describe_prefix_lists", "PrefixListIds", "pl-00000000000000001", "InvalidPrefixListID.NotFound"),
    ],
)
def test_an_unknown_id_is_refused_by_every_action(
    action: str, parameter: str, identifier: str, code: str, ec2: Any
) -> None:
    with refused(code):
        getattr(ec2, action)(**{parameter: [identifier]})
