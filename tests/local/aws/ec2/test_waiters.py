"""botocore's own waiters and paginators of EC2, for each action that the local cloud has."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import pytest
from botocore import xform_name
from botocore.exceptions import WaiterError
from botocore.waiter import WaiterModel

from imagepipe.local.aws.ec2 import absent
from imagepipe.local.aws.ec2.actions import MOTO, OWN
from imagepipe.local.aws.faults.faults import Fault
from tests.local.aws.harness import (
    Cloud,
    bake,
    base_image,
    instance,
    launch,
    register,
    retain,
    root_volume,
    running,
    share,
    snapshot_of,
    until,
)

LOADER = boto3.Session()._loader
WAITERS = WaiterModel(LOADER.load_service_model("ec2", "waiters-2"))
LONG = ("DescribeInstanceTypes", "DescribeInstanceTypeOfferings")
"""Actions that list hundreds of items."""
PAGINATORS: Mapping[str, Any] = LOADER.load_service_model("ec2", "paginators-1")["pagination"]
OURS = sorted(name for name in WAITERS.waiter_names if WAITERS.get_waiter(name).operation in OWN.keys() | MOTO)
UNREACHABLE = {
    "NetworkInterfaceAvailable": "each interface belongs to an instance",
    "PasswordDataAvailable": "only Windows has a password",
}
Given = dict[str, Any]


def started(ec2: Any) -> Given:
    return {"InstanceIds": [launch(ec2)]}


def stopping(ec2: Any) -> Given:
    made = running(ec2)
    ec2.stop_instances(InstanceIds=[made])
    return {"InstanceIds": [made]}


def terminating(ec2: Any) -> Given:
    made = running(ec2)
    ec2.terminate_instances(InstanceIds=[made])
    return {"InstanceIds": [made]}


def registered(ec2: Any) -> Given:
    return {"ImageIds": [register(ec2, snapshot_of(ec2, running(ec2)), "web")]}


def snapshot(ec2: Any) -> Given:
    return {"SnapshotIds": [ec2.create_snapshot(VolumeId=root_volume(ec2, running(ec2)))["SnapshotId"]]}


def volume(ec2: Any) -> Given:
    return {"VolumeIds": [ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]]}


def deleted_volume(ec2: Any) -> Given:
    given = volume(ec2)
    until(lambda: ec2.describe_volumes(**given)["Volumes"][0]["State"] == "available")
    ec2.delete_volume(VolumeId=given["VolumeIds"][0])
    return given


def used_volume(ec2: Any) -> Given:
    return {"VolumeIds": [root_volume(ec2, launch(ec2))]}


def key_pair(ec2: Any) -> Given:
    return {"KeyNames": [ec2.create_key_pair(KeyName="web", KeyType="ed25519")["KeyName"]]}


def group(ec2: Any) -> Given:
    return {"GroupIds": [ec2.create_security_group(GroupName="web", Description="web")["GroupId"]]}


def vpc(ec2: Any) -> Given:
    return {"VpcIds": [ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]]}


def subnet(ec2: Any) -> Given:
    made = ec2.create_subnet(VpcId=vpc(ec2)["VpcIds"][0], CidrBlock="10.0.0.0/24")["Subnet"]
    return {"SubnetIds": [made["SubnetId"]]}


def gateway(ec2: Any) -> Given:
    return {"InternetGatewayIds": [ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]]}


def nat_gateway(ec2: Any) -> Given:
    subnet_id = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    made = ec2.create_nat_gateway(SubnetId=subnet_id, AllocationId=address)["NatGateway"]
    return {"NatGatewayIds": [made["NatGatewayId"]]}


def deleted_nat_gateway(ec2: Any) -> Given:
    given = nat_gateway(ec2)
    wait(ec2, "NatGatewayAvailable", given)
    ec2.delete_nat_gateway(NatGatewayId=given["NatGatewayIds"][0])
    return given


def unconnected_nat_gateway(ec2: Any) -> Given:
    """A gateway in a network without an internet gateway."""
    subnet_id = subnet(ec2)["SubnetIds"][0]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    made = ec2.create_nat_gateway(SubnetId=subnet_id, AllocationId=address)["NatGateway"]
    return {"NatGatewayIds": [made["NatGatewayId"]]}


def imported(ec2: Any) -> Given:
    """An import of a disk; the role and the bucket are made with clients like the one given."""
    for service in ("iam", "s3"):
        other = sibling(ec2, service)
        if service == "iam":
            other.create_role(RoleName="vmimport", AssumeRolePolicyDocument="{}")
        else:
            other.create_bucket(Bucket="disks")
            other.put_object(Bucket="disks", Key="disk", Body=b"x" * 512)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "disks", "S3Key": "disk"}}
    return {"ImportTaskIds": [ec2.import_snapshot(DiskContainer=container)["ImportTaskId"]]}


def usage_report(ec2: Any) -> Given:
    types = [{"ResourceType": "ec2:Instance"}]
    image = registered(ec2)["ImageIds"][0]
    return {"ReportIds": [ec2.create_image_usage_report(ImageId=image, ResourceTypes=types)["ReportId"]]}


def sibling(ec2: Any, service: str) -> Any:
    """A client of another service, at the same endpoint with the same credentials."""
    credentials = ec2._request_signer._credentials
    return boto3.client(
        service,
        region_name=ec2.meta.region_name,
        endpoint_url=ec2.meta.endpoint_url,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
    )


def spot_request(ec2: Any) -> Given:
    made = launch(ec2, InstanceMarketOptions={"MarketType": "spot"})
    return {"SpotInstanceRequestIds": [instance(ec2, made)["SpotInstanceRequestId"]]}


SUCCESS: dict[str, Callable[[Any], Given]] = {
    "ImageAvailable": registered,
    "ImageExists": registered,
    "ImageUsageReportAvailable": usage_report,
    "InstanceExists": started,
    "InstanceRunning": started,
    "InstanceStatusOk": started,
    "InstanceStopped": stopping,
    "InstanceTerminated": terminating,
    "InternetGatewayExists": gateway,
    "KeyPairExists": key_pair,
    "NatGatewayAvailable": nat_gateway,
    "NatGatewayDeleted": deleted_nat_gateway,
    "SecurityGroupExists": group,
    "SnapshotCompleted": snapshot,
    "SnapshotImported": imported,
    "SpotInstanceRequestFulfilled": spot_request,
    "SubnetAvailable": subnet,
    "SystemStatusOk": started,
    "VolumeAvailable": volume,
    "VolumeDeleted": deleted_volume,
    "VolumeInUse": used_volume,
    "VpcAvailable": vpc,
    "VpcExists": vpc,
    "VpcPeeringConnectionDeleted": lambda ec2: {"VpcPeeringConnectionIds": ["pcx-00000000000000001"]},
    "VpcPeeringConnectionExists": lambda ec2: {},
}


def test_each_waiter_of_botocore_is_tried_or_cannot_succeed_here() -> None:
    assert sorted(SUCCESS.keys() | UNREACHABLE.keys()) == OURS


def wait(ec2: Any, name: str, given: Given) -> None:
    ec2.get_waiter(xform_name(name)).wait(**given, WaiterConfig={"Delay": 0.01, "MaxAttempts": 500})


@pytest.mark.parametrize("name", SUCCESS)
def test_a_waiter_succeeds(name: str, ec2: Any) -> None:
    wait(ec2, name, SUCCESS[name](ec2))


FAILURES = {
    "InstanceRunning": terminating,
    "InstanceStopped": terminating,
    "ImageAvailable": registered,
    "NetworkInterfaceAvailable": lambda ec2: {"NetworkInterfaceIds": ["eni-00000000000000001"]},
    "NatGatewayAvailable": unconnected_nat_gateway,
    "SnapshotCompleted": snapshot,
    "SnapshotImported": imported,
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_waiter_ends_at_a_state_of_failure(name: str, cloud: Cloud, ec2: Any) -> None:
    failing = {
        "ImageAvailable": "RegisterImage",
        "SnapshotCompleted": "CreateSnapshot",
        "SnapshotImported": "ImportSnapshot",
    }
    if name in failing:
        cloud.gateway.backend.faults.add(Fault(effect="fail", action=failing[name]))
    given = FAILURES[name](ec2)
    with pytest.raises(WaiterError, match=r"terminal failure state|does not exist"):
        wait(ec2, name, given)


def test_the_waiter_for_a_termination_ends_at_an_instance_that_is_pending(cloud: Cloud, ec2: Any) -> None:
    cloud.driver.gate = threading.Event()
    given = started(ec2)
    with pytest.raises(WaiterError, match="terminal failure state"):
        wait(ec2, "InstanceTerminated", given)
    cloud.driver.gate.set()


def test_a_spot_request_that_was_cancelled_counts_as_fulfilled_while_its_instance_runs(ec2: Any) -> None:
    given = spot_request(ec2)
    ec2.cancel_spot_instance_requests(**given)
    [found] = ec2.describe_spot_instance_requests(**given)["SpotInstanceRequests"]
    assert found["Status"]["Code"] == "request-canceled-and-instance-running"
    wait(ec2, "SpotInstanceRequestFulfilled", given)
    ec2.terminate_instances(InstanceIds=[found["InstanceId"]])
    [found] = ec2.describe_spot_instance_requests(**given)["SpotInstanceRequests"]
    assert found["Status"]["Code"] == "instance-terminated-by-user"


PAGED = sorted(PAGINATORS.keys() & (OWN.keys() | MOTO))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a cloud that has more than one page of most kinds of resources."""
    cloud = Cloud(root=tmp_path_factory.mktemp("pages"))
    cloud.start()
    ec2 = cloud.client()
    base = base_image(ec2)
    cloud.client("iam").create_instance_profile(InstanceProfileName="web")
    for number in range(6):
        template = {"LaunchTemplateName": f"web-{number}", "LaunchTemplateData": {"ImageId": base}}
        ec2.create_launch_template(**template)
        own = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        ec2.create_subnet(VpcId=own, CidrBlock="10.0.0.0/24")
        ec2.create_internet_gateway()
        nat_gateway(ec2)
        ec2.create_dhcp_options(DhcpConfigurations=[{"Key": "domain-name", "Values": ["example.com"]}])
        made = running(ec2, InstanceMarketOptions={"MarketType": "spot"}, IamInstanceProfile={"Name": "web"})
        register(ec2, snapshot_of(ec2, made), f"web-{number}")
        ec2.create_tags(Resources=[made], Tags=[{"Key": "number", "Value": str(number)}])
        ec2.modify_volume(VolumeId=root_volume(ec2, made), Size=16)
    container = {"Format": "RAW", "UserBucket": {"S3Bucket": "disks", "S3Key": "disk"}}
    imported(ec2)
    for _ in range(6):
        ec2.import_snapshot(DiskContainer=container)
    furnish_with_uses(cloud)
    try:
        yield ec2
    finally:
        cloud.stop()


def furnish_with_uses(cloud: Cloud) -> None:
    """Make uses of an image, reports on one that another account launched, and images and snapshots in Recycle Bin."""
    ec2 = cloud.client()
    for kind in ("EC2_IMAGE", "EBS_SNAPSHOT"):
        retain(cloud, kind)
    shared = bake(ec2, "shared")
    share(ec2, shared)
    launch(cloud.client(other=True), ImageId=shared)
    instances = [{"ResourceType": "ec2:Instance"}]
    for number in range(6):
        report = ec2.create_image_usage_report(ImageId=shared, ResourceTypes=instances)["ReportId"]
        until(lambda: ec2.describe_image_usage_report_entries(ReportIds=[report])["ImageUsageReportEntries"])  # noqa: B023
        gone = bake(ec2, f"gone-{number}")
        ec2.deregister_image(ImageId=gone, DeleteAssociatedSnapshots=True)


EMPTY = absent.ACTIONS | {"DescribeVpcEndpoints", "DescribeVpcPeeringConnections"}
"""Actions that never have anything to describe."""


@pytest.mark.parametrize("action", PAGED)
def test_a_paginator_returns_everything_once(action: str, full: Any) -> None:
    needed: dict[str, Given] = {
        "DescribeImageReferences": {"ImageIds": [base_image(full)], "IncludeAllResourceTypes": True},
        "DescribeLaunchTemplateVersions": {"Versions": ["$Latest"]},
    }
    given = needed.get(action, {})
    key = PAGINATORS[action]["result_key"]
    shape = full.meta.service_model.operation_model(action).input_shape.members["MaxResults"]
    size = max(100 if action in LONG else 5, shape.metadata.get("min", 1))
    pages = list(full.get_paginator(xform_name(action)).paginate(**given, PaginationConfig={"PageSize": size}))
    found = [item for page in pages for item in page[key]]
    everything = getattr(full, xform_name(action))(**given)[key]
    assert found == everything
    assert all(len(page[key]) <= size for page in pages)
    assert bool(found) == (action not in EMPTY)
