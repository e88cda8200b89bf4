"""Volumes that are modified: their states, their bytes, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import Cloud, available, image, launch, refused, root_volume, running, stopped, until

GIB = 1 << 30


def new_volume(ec2: Any, **params: Any) -> str:
    made = str(ec2.create_volume(**{"AvailabilityZone": "us-east-1a", "Size": 1, **params})["VolumeId"])
    until(lambda: volume(ec2, made)["State"] == "available")
    return made


def volume(ec2: Any, volume_id: str) -> Any:
    return ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]


def modification(ec2: Any, volume_id: str) -> Any:
    return ec2.describe_volumes_modifications(VolumeIds=[volume_id])["VolumesModifications"][0]


def modified(ec2: Any, volume_id: str, **params: Any) -> None:
    ec2.modify_volume(VolumeId=volume_id, **params)
    until(lambda: modification(ec2, volume_id)["ModificationState"] == "completed")


def file_size(cloud: Cloud, volume_id: str) -> int:
    return (cloud.disks / "volumes" / f"{volume_id}.raw").stat().st_size


def test_a_modification_goes_through_its_states_and_describes_both_sides(cloud: Cloud, ec2: Any) -> None:
    made = new_volume(ec2)
    queues = cloud.gateway.backend.job_queues
    queues.set_delay("modify", 60)
    queues.set_delay("optimize", 60)
    answer = ec2.modify_volume(VolumeId=made, Size=10, VolumeType="gp3", Iops=4000, Throughput=250)
    told = answer["VolumeModification"]
    assert (told["ModificationState"], told["OriginalSize"], told["TargetSize"]) == ("modifying", 1, 10)
    assert volume(ec2, made)["Size"] == 1
    with refused("IncorrectModificationState", match="MODIFYING"):
        ec2.modify_volume(VolumeId=made, Size=11)
    queues.set_delay("modify", 0)
    until(lambda: modification(ec2, made)["ModificationState"] == "optimizing")
    assert volume(ec2, made)["Size"] == 10, "a size is in effect as soon as the volume is optimizing"
    with refused("IncorrectModificationState", match="OPTIMIZING"):
        ec2.modify_volume(VolumeId=made, Size=11)
    queues.set_delay("optimize", 0)
    until(lambda: modification(ec2, made)["ModificationState"] == "completed")
    done, now = modification(ec2, made), volume(ec2, made)
    assert (done["OriginalVolumeType"], done["OriginalIops"], done["Progress"]) == ("gp2", 100, 100)
    assert (done["TargetVolumeType"], done["TargetIops"], done["TargetThroughput"]) == ("gp3", 4000, 250)
    assert (now["VolumeType"], now["Iops"], now["Throughput"]) == ("gp3", 4000, 250)
    assert file_size(cloud, made) == 10 * GIB


def test_values_that_are_not_named_are_kept_or_the_new_types_defaults(ec2: Any) -> None:
    made = new_volume(ec2, Size=100)
    modified(ec2, made, Size=200)
    assert (volume(ec2, made)["VolumeType"], volume(ec2, made)["Iops"]) == ("gp2", 600)
    modified(ec2, made, VolumeType="gp3")
    assert (volume(ec2, made)["Iops"], volume(ec2, made)["Throughput"]) == (3000, 125)
    modified(ec2, made, Iops=5000)
    modified(ec2, made, Throughput=300)
    assert (volume(ec2, made)["Iops"], volume(ec2, made)["Throughput"]) == (5000, 300)


def test_a_volume_is_modified_four_times_a_day(cloud: Cloud, ec2: Any) -> None:
    made = new_volume(ec2)
    for size in (2, 3, 4, 5):
        modified(ec2, made, Size=size)
    with refused("VolumeModificationRateExceeded"):
        ec2.modify_volume(VolumeId=made, Size=6)
    cloud.admin("POST", "clock", {"advance": 24 * 3600})
    modified(ec2, made, Size=6)


def test_the_running_machine_is_shown_the_new_size(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    modified(ec2, root_volume(ec2, made), Size=20)
    assert cloud.driver.sizes == {"/dev/xvda": 20 * GIB}


def test_a_machine_that_cannot_be_shown_the_new_size_sees_it_at_its_next_boot(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    cloud.driver.fails.add("resize")
    modified(ec2, root_volume(ec2, made), Size=20)
    assert file_size(cloud, root_volume(ec2, made)) == 20 * GIB


def test_the_root_of_a_stopped_instance_grows(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    modified(ec2, root_volume(ec2, made), Size=20)
    assert file_size(cloud, root_volume(ec2, made)) == 20 * GIB
    assert ("resize", made) not in cloud.driver.calls


def test_snapshots_and_images_that_follow_a_modification_have_its_size(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    root = root_volume(ec2, made)
    cloud.gateway.backend.job_queues.set_delay("modify", 60)
    before = ec2.create_snapshot(VolumeId=root)
    ec2.modify_volume(VolumeId=root, Size=20)
    after = ec2.create_snapshot(VolumeId=root)
    assert (before["VolumeSize"], after["VolumeSize"]) == (1, 20)
    cloud.gateway.backend.job_queues.set_delay("modify", 0)
    several = ec2.create_snapshots(InstanceSpecification={"InstanceId": made})["Snapshots"]
    assert several[0]["VolumeSize"] == 20
    of_it = available(ec2, ec2.create_image(InstanceId=made, Name="grown")["ImageId"])
    assert image(ec2, of_it)["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 20
    launched = launch(ec2, ImageId=of_it)
    until(lambda: launched in cloud.driver.machines)


@pytest.mark.parametrize("kind", ["modify", "optimize"])
def test_a_restart_finishes_a_modification(cloud: Cloud, kind: str) -> None:
    ec2 = cloud.client()
    made = new_volume(ec2)
    cloud.gateway.backend.job_queues.set_delay(kind, 60)
    ec2.modify_volume(VolumeId=made, Size=3)
    until(lambda: modification(ec2, made)["ModificationState"] == {"modify": "modifying"}.get(kind, "optimizing"))
    cloud.restart()
    again = cloud.client()
    until(lambda: modification(again, made)["ModificationState"] == "completed")
    assert file_size(cloud, made) == 3 * GIB


def test_a_volume_is_not_attached_while_it_is_modified_and_is_forgotten_with_its_modification(
    cloud: Cloud, ec2: Any
) -> None:
    instance_id = stopped(ec2, Placement={"AvailabilityZone": "us-east-1a"})
    made = new_volume(ec2)
    cloud.gateway.backend.job_queues.set_delay("modify", 60)
    ec2.modify_volume(VolumeId=made, Size=3)
    with refused("IncorrectState", match="being modified"):
        ec2.attach_volume(VolumeId=made, InstanceId=instance_id, Device="/dev/sdf")
    cloud.gateway.backend.job_queues.set_delay("modify", 0)
    until(lambda: modification(ec2, made)["ModificationState"] == "completed")
    of_state = [{"Name": "modification-state", "Values": ["completed"]}]
    assert len(ec2.describe_volumes_modifications(Filters=of_state)["VolumesModifications"]) == 1
    ec2.delete_volume(VolumeId=made)
    until(lambda: ec2.describe_volumes_modifications()["VolumesModifications"] == [])
