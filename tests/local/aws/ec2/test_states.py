"""States take their course, and what follows from them."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from imagepipe.local.aws.protocol.errors import AwsError
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


def test_an_instance_is_pending_until_its_machine_runs(cloud: Cloud, ec2: Any) -> None:
    cloud.driver.gate = threading.Event()
    made = launch(ec2)
    until(lambda: cloud.driver.machines == {} and (cloud.disks / "volumes").exists())
    assert state(ec2, made) == "pending"
    cloud.driver.gate.set()
    until(lambda: state(ec2, made) == "running")


def test_an_instance_goes_through_stopping_and_shutting_down(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    cloud.stop()
    cloud.delays = {"stop": 3, "terminate": 3}
    cloud.start()
    ec2 = cloud.client()
    [change] = ec2.stop_instances(InstanceIds=[made])["StoppingInstances"]
    assert (change["PreviousState"]["Name"], change["CurrentState"]["Name"]) == ("running", "stopping")
    assert state(ec2, made) == "stopping"
    until(lambda: state(ec2, made) == "stopped")
    assert instance(ec2, made)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    ec2.terminate_instances(InstanceIds=[made])
    assert state(ec2, made) == "shutting-down"
    until(lambda: state(ec2, made) == "terminated")


def test_a_stopped_instance_starts_again_with_its_disk_and_address(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    before = cloud.driver.machines[made]
    ec2.stop_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "stopped")
    assert "PublicIpAddress" not in instance(ec2, made)
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    after = cloud.driver.machines[made]
    assert replace(after, metadata=before.metadata) == before
    assert after.metadata.values == before.metadata.values, "the identity has the time of the new start"
    assert instance(ec2, made)["PublicIpAddress"] == before.address


def test_a_terminated_instance_is_described_for_an_hour(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    ec2.terminate_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "terminated")
    backend = cloud.gateway.backend
    backend.clock.advance(3500)
    assert state(ec2, made) == "terminated"
    backend.clock.advance(200)
    assert ec2.describe_instances()["Reservations"] == []
    until(lambda: ("forget", made) in cloud.driver.calls)
    with refused("InvalidInstanceID.NotFound"):
        ec2.describe_instances(InstanceIds=[made])


@pytest.mark.parametrize(("behavior", "end"), [("stop", "stopped"), ("terminate", "terminated")])
def test_a_power_off_from_inside_stops_or_terminates_as_launched(
    cloud: Cloud, ec2: Any, behavior: str, end: str
) -> None:
    made = running(ec2, InstanceInitiatedShutdownBehavior=behavior)
    cloud.driver.power_off_from_inside(made)
    until(lambda: state(ec2, made) == end)
    assert instance(ec2, made)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


def test_a_machine_that_cannot_be_started_ends_with_the_reason(cloud: Cloud, ec2: Any) -> None:
    cloud.driver.fails = {"start"}
    made = launch(ec2)
    until(lambda: state(ec2, made) == "terminated")
    reason = instance(ec2, made)["StateReason"]
    assert reason["Code"] == "Server.InternalError"
    assert "told to fail" in reason["Message"]
    assert not list((cloud.disks / "volumes").iterdir())


def test_an_instance_that_cannot_be_started_again_stays_stopped(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    cloud.driver.fails = {"start"}
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "stopped")
    assert instance(ec2, made)["StateReason"]["Code"] == "Server.InternalError"
    assert (cloud.disks / "volumes" / f"{root_volume(ec2, made)}.raw").exists()


def test_a_store_without_room_ends_the_launch_with_the_reason(cloud: Cloud, ec2: Any) -> None:
    cloud.gateway.backend.disks._reserve = 1 << 60
    made = launch(ec2)
    until(lambda: state(ec2, made) == "terminated")
    assert instance(ec2, made)["StateReason"]["Code"] == "Client.VolumeLimitExceeded"


def test_a_snapshot_is_pending_until_its_bytes_are_there(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    cloud.stop()
    cloud.delays = {"snapshot": 600}
    cloud.start()
    ec2 = cloud.client()
    taken = ec2.create_snapshot(VolumeId=root_volume(ec2, made), Description="before")
    assert (taken["State"], taken["Progress"]) == ("pending", "0%")
    with refused("IncorrectState"):
        register(ec2, taken["SnapshotId"], "too-early")
    cloud.stop()
    cloud.delays = {}
    cloud.start()
    ec2 = cloud.client()
    ec2.get_waiter("snapshot_completed").wait(
        SnapshotIds=[taken["SnapshotId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 300}
    )
    assert (cloud.disks / "snapshots" / f"{taken['SnapshotId']}.raw").exists()


def test_a_snapshot_has_the_disk_as_it_was_at_the_request(cloud: Cloud, ec2: Any) -> None:
    """A start that comes after the snapshot waits for it."""
    made = stopped(ec2)
    cloud.stop()
    cloud.delays = {"snapshot": 0.2}
    cloud.start()
    ec2 = cloud.client()
    taken = ec2.create_snapshot(VolumeId=root_volume(ec2, made))["SnapshotId"]
    ec2.start_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "running")
    [snapshot] = ec2.describe_snapshots(SnapshotIds=[taken])["Snapshots"]
    assert snapshot["State"] == "completed"


def test_a_running_instances_disk_is_frozen_while_it_is_read(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    snapshot_of(ec2, made)
    assert ("quiesced", made) in cloud.driver.calls


def test_create_image_stops_a_running_instance_and_starts_it_again(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    cloud.driver.calls.clear()
    available(ec2, ec2.create_image(InstanceId=made, Name="web-1")["ImageId"])
    assert cloud.driver.calls == [("stop", made), ("start", made)]
    assert state(ec2, made) == "running"


def test_create_image_without_a_reboot_leaves_the_machine_running(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    cloud.driver.calls.clear()
    available(ec2, ec2.create_image(InstanceId=made, Name="web-1", NoReboot=True)["ImageId"])
    assert cloud.driver.calls == [("quiesced", made)]


def test_an_image_whose_snapshot_fails_goes_to_failed_with_the_reason(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    cloud.driver.fails = {"quiesced"}
    created = ec2.create_image(InstanceId=made, Name="web-1", NoReboot=True)["ImageId"]
    until(lambda: image(ec2, created)["State"] == "failed")
    assert "told to fail" in image(ec2, created)["StateReason"]["Message"]


def test_a_machine_that_does_not_stop_in_order_is_stopped_at_once(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    tries: list[bool] = []

    def stop(machine_id: str, *, force: bool = False) -> None:
        tries.append(force)
        if not force:
            cloud.driver._called("stop", machine_id)
        cloud.driver.machines.pop(machine_id)

    cloud.driver.fails = {"stop"}
    cloud.driver.stop = stop  # type: ignore[method-assign]  # this driver only
    ec2.stop_instances(InstanceIds=[made])
    until(lambda: state(ec2, made) == "stopped")
    assert tries == [False, True]


def test_console_output_is_the_machines(ec2: Any) -> None:
    made = running(ec2)
    assert ec2.get_console_output(InstanceId=made)["Output"] == f"Linux on {made}\n"


def test_reboot_is_passed_on(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    ec2.reboot_instances(InstanceIds=[made])
    until(lambda: ("reboot", made) in cloud.driver.calls)
    assert state(ec2, made) == "running"


def test_instances_counts_those_that_have_a_machine(cloud: Cloud, ec2: Any) -> None:
    first, second = running(ec2), running(ec2)
    assert cloud.gateway.instances() == 2
    ec2.stop_instances(InstanceIds=[first])
    ec2.terminate_instances(InstanceIds=[second])
    until(lambda: cloud.gateway.instances() == 0)


@pytest.mark.parametrize("other", ["shutting-down", "stopped", None], ids=["ended", "stopped", "gone"])
def test_work_on_an_instance_does_not_see_a_change_that_is_not_made_in_the_end(
    cloud: Cloud, ec2: Any, other: str | None
) -> None:
    """As a DryRun of TerminateInstances is done beside the start of a machine, which must go on."""
    made = stopped(ec2)
    database, held = cloud.gateway.backend.database, threading.Event()

    def hold() -> None:
        held.wait(30)

    cloud.gateway.backend.job_queues.submit(made, hold)
    ec2.start_instances(InstanceIds=[made])
    cloud.driver.calls.clear()

    def refused_in_the_end() -> None:
        with database.change():
            before = database.instances[made]
            if other is None:
                database.remove(before)
            else:
                database.put(replace(before, state=other))
            held.set()
            until(lambda: ("start", made) in cloud.driver.calls, 30)
            raise AwsError("DryRunOperation", "Request would have succeeded")

    with pytest.raises(AwsError):
        refused_in_the_end()
    until(lambda: state(ec2, made) == "running", 30)
