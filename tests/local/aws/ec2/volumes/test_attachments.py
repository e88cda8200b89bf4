"""Volumes that are attached to running instances, and detached from them."""

from __future__ import annotations

from typing import Any

import pytest

from imagepipe.local.aws.ec2.instances import disks
from tests.local.aws.harness import Cloud, instance, refused, running, state, until


def volume_beside(ec2: Any, instance_id: str) -> str:
    zone = instance(ec2, instance_id)["Placement"]["AvailabilityZone"]
    made = str(ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"])
    until(lambda: volume(ec2, made)["State"] == "available")
    return made


def volume(ec2: Any, volume_id: str) -> Any:
    return ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]


def attachment(ec2: Any, volume_id: str) -> str:
    found = volume(ec2, volume_id)["Attachments"]
    return str(found[0]["State"]) if found else "none"


def attached(ec2: Any, instance_id: str) -> str:
    """A volume that is attached to the running instance at /dev/sdf."""
    made = volume_beside(ec2, instance_id)
    ec2.attach_volume(VolumeId=made, InstanceId=instance_id, Device="/dev/sdf")
    until(lambda: attachment(ec2, made) == "attached")
    return made


def devices(cloud: Cloud, instance_id: str) -> list[str]:
    return [disk.device for disk in cloud.driver.machines[instance_id].disks]


@pytest.fixture(autouse=True)
def _tries_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "BUSY_SECONDS", 0.02)


def test_a_volume_is_attaching_until_the_running_machine_has_it(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    disk = volume_beside(ec2, made)
    cloud.gateway.backend.job_queues.set_delay("attach", 60)
    answer = ec2.attach_volume(VolumeId=disk, InstanceId=made, Device="/dev/sdf")
    assert (answer["State"], answer["Device"]) == ("attaching", "/dev/sdf")
    assert volume(ec2, disk)["State"] == "in-use"
    assert instance(ec2, made)["BlockDeviceMappings"][1]["Ebs"]["Status"] == "attaching"
    cloud.gateway.backend.job_queues.set_delay("attach", 0)
    until(lambda: attachment(ec2, disk) == "attached")
    assert devices(cloud, made) == ["/dev/xvda", "/dev/sdf"]
    by_status = [{"Name": "attachment.status", "Values": ["attaching"]}]
    assert ec2.describe_volumes(Filters=by_status)["Volumes"] == []


def test_a_volume_is_detaching_until_the_running_machine_has_released_it(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    disk = attached(ec2, made)
    cloud.gateway.backend.job_queues.set_delay("detach", 60)
    assert ec2.detach_volume(VolumeId=disk)["State"] == "detaching"
    assert (volume(ec2, disk)["State"], attachment(ec2, disk)) == ("in-use", "detaching")
    with refused("IncorrectState"):
        ec2.detach_volume(VolumeId=disk)
    cloud.gateway.backend.job_queues.set_delay("detach", 0)
    until(lambda: volume(ec2, disk)["State"] == "available")
    assert attachment(ec2, disk) == "none"
    assert devices(cloud, made) == ["/dev/xvda"]


def test_a_mounted_volume_is_busy_until_it_is_unmounted(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    disk = attached(ec2, made)
    cloud.driver.mounted.add("/dev/sdf")
    ec2.detach_volume(VolumeId=disk)
    until(lambda: attachment(ec2, disk) == "busy")
    assert instance(ec2, made)["BlockDeviceMappings"][1]["Ebs"]["Status"] == "detaching"
    with refused("VolumeInUse"):
        ec2.delete_volume(VolumeId=disk)
    cloud.driver.mounted.clear()
    until(lambda: volume(ec2, disk)["State"] == "available")


def test_a_busy_volume_is_detached_when_its_instance_stops(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    disk = attached(ec2, made)
    cloud.driver.mounted.add("/dev/sdf")
    ec2.detach_volume(VolumeId=disk)
    until(lambda: attachment(ec2, disk) == "busy")
    ec2.stop_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "stopped")
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    assert volume(ec2, disk)["State"] == "available"
    assert devices(cloud, made) == ["/dev/xvda"]


def test_an_attached_volume_is_there_after_a_stop_and_a_start(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    disk = attached(ec2, made)
    ec2.stop_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "stopped")
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    assert devices(cloud, made) == ["/dev/xvda", "/dev/sdf"]
    ec2.terminate_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "terminated")
    assert volume(ec2, disk)["State"] == "available"


def test_a_volume_that_the_machine_cannot_take_is_available_again(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    disk = volume_beside(ec2, made)
    cloud.driver.fails.add("attach")
    ec2.attach_volume(VolumeId=disk, InstanceId=made, Device="/dev/sdf")
    until(lambda: volume(ec2, disk)["State"] == "available")
    assert len(instance(ec2, made)["BlockDeviceMappings"]) == 1


@pytest.mark.parametrize("kind", ["attach", "detach"])
def test_a_restart_finishes_what_was_under_way(cloud: Cloud, kind: str) -> None:
    ec2 = cloud.client()
    made = running(ec2)
    disk = attached(ec2, made) if kind == "detach" else volume_beside(ec2, made)
    cloud.gateway.backend.job_queues.set_delay(kind, 60)
    if kind == "detach":
        ec2.detach_volume(VolumeId=disk)
    else:
        ec2.attach_volume(VolumeId=disk, InstanceId=made, Device="/dev/sdf")
    cloud.restart()
    again = cloud.client()
    until(lambda: attachment(again, disk) == {"attach": "attached", "detach": "none"}[kind])
    assert devices(cloud, made) == ["/dev/xvda"] + ["/dev/sdf"] * (kind == "attach")


def test_a_name_without_its_folder_is_a_device(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    disk = volume_beside(ec2, made)
    ec2.attach_volume(VolumeId=disk, InstanceId=made, Device="sdf")
    until(lambda: attachment(ec2, disk) == "attached")
    assert devices(cloud, made) == ["/dev/xvda", "/dev/sdf"]
    ec2.detach_volume(VolumeId=disk)
    until(lambda: volume(ec2, disk)["State"] == "available")
    assert devices(cloud, made) == ["/dev/xvda"]
