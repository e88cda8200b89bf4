"""What a bake asks of EC2, from the launch to an instance of the copy in another region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.local.aws.harness import (
    BASE_BYTES,
    Cloud,
    available,
    base_image,
    image,
    launch,
    register,
    root_volume,
    running,
    state,
    until,
)


def first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4096)


def test_a_change_on_an_instances_disk_is_on_the_disk_of_an_instance_of_its_image_in_another_region(
    cloud: Cloud, ec2: Any
) -> None:
    first = running(ec2)
    disk = cloud.driver.machines[first].disks[0]
    assert disk.device == "/dev/xvda"
    assert first_bytes(disk.path).startswith(BASE_BYTES)
    with disk.path.open("r+b") as file:
        file.write(b"baked")
    ec2.stop_instances(InstanceIds=[first])
    until(lambda: state(ec2, first) == "stopped")
    [snapshot] = ec2.create_snapshots(InstanceSpecification={"InstanceId": first})["Snapshots"]
    until(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot["SnapshotId"]])["Snapshots"][0]["State"] == "completed")
    made = available(ec2, register(ec2, snapshot["SnapshotId"], "web-1"))
    there = cloud.client(region="eu-west-1")
    copy = there.copy_image(SourceRegion="us-east-1", SourceImageId=made, Name="web-1")["ImageId"]
    available(there, copy)
    second = running(there, ImageId=copy)
    assert first_bytes(cloud.driver.machines[second].disks[0].path).startswith(b"baked")
    ec2.terminate_instances(InstanceIds=[first])
    there.terminate_instances(InstanceIds=[second])
    until(lambda: state(ec2, first) == state(there, second) == "terminated")
    assert not cloud.driver.machines
    assert not list((cloud.disks / "volumes").iterdir())
    assert cloud.gateway.instances() == 0


def test_every_region_has_debians_image_and_a_default_network(cloud: Cloud) -> None:
    for region in ("us-east-1", "eu-central-1", "ap-southeast-2"):
        client = cloud.client(region=region)
        found = image(client, base_image(client))
        assert found["Name"].startswith("debian-12-amd64-")
        assert (found["OwnerId"], found["RootDeviceName"]) == ("136693071363", "/dev/xvda")
        [vpc] = client.describe_vpcs()["Vpcs"]
        assert (vpc["CidrBlock"], vpc["IsDefault"]) == ("127.42.0.0/16", True)
        assert len({subnet["AvailabilityZone"] for subnet in client.describe_subnets()["Subnets"]}) >= 2
        assert [group["GroupName"] for group in client.describe_security_groups()["SecurityGroups"]] == ["default"]


def test_an_instance_has_a_loopback_address_that_no_other_instance_of_any_region_has(cloud: Cloud, ec2: Any) -> None:
    there = cloud.client(region="eu-west-1")
    ids = [launch(client) for client in (ec2, there) for _ in range(5)]
    until(lambda: len(cloud.driver.machines) == len(ids))
    addresses = {machine.address for machine in cloud.driver.machines.values()}
    assert len(addresses) == len(ids)
    assert all(address.startswith("127.42.") for address in addresses)


def test_the_root_volume_is_as_large_as_the_launch_asks(cloud: Cloud, ec2: Any) -> None:
    instance_id = running(
        ec2, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 3, "VolumeType": "gp3"}}]
    )
    [volume] = ec2.describe_volumes(VolumeIds=[root_volume(ec2, instance_id)])["Volumes"]
    assert (volume["Size"], volume["VolumeType"], volume["Iops"], volume["Throughput"]) == (3, "gp3", 3000, 125)
    assert cloud.driver.machines[instance_id].disks[0].path.stat().st_size == 3 << 30
