"""Deregistering an image together with its snapshots."""

from __future__ import annotations

from typing import Any

from tests.local.aws.harness import (
    Cloud,
    available,
    bake,
    caller,
    may,
    only_snapshot,
    refused,
    register,
    snapshot_of,
    stopped,
)


def results(ec2: Any, image_id: str) -> dict[str, str]:
    answer = ec2.deregister_image(ImageId=image_id, DeleteAssociatedSnapshots=True)
    return {row["SnapshotId"]: row["ReturnCode"] for row in answer["DeleteSnapshotResults"]}


def test_snapshots_stay_unless_the_request_says_otherwise(ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    snapshot = only_snapshot(ec2, baked)
    assert ec2.deregister_image(ImageId=baked)["DeleteSnapshotResults"] == []
    assert len(ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]) == 1


def test_a_snapshot_of_two_images_goes_with_the_second(cloud: Cloud, ec2: Any) -> None:
    first = bake(ec2, "web-1")
    snapshot = only_snapshot(ec2, first)
    second = available(ec2, register(ec2, snapshot, "web-2"))
    assert results(ec2, first) == {snapshot: "skipped"}
    assert cloud.gateway.backend.disks.snapshot_path(snapshot).exists()
    assert results(ec2, second) == {snapshot: "success"}
    assert not cloud.gateway.backend.disks.snapshot_path(snapshot).exists()
    with refused("InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=[snapshot])


def test_a_caller_who_may_not_delete_snapshots_deregisters_the_image_alone(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    snapshot = only_snapshot(ec2, baked)
    limited = caller(cloud, may("ec2:DeregisterImage"))
    assert results(limited, baked) == {snapshot: "missing-permissions"}
    assert len(ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]) == 1
    again = available(ec2, register(ec2, snapshot, "web-1"))
    allowed = caller(
        cloud, may("ec2:DeregisterImage"), may("ec2:DeleteSnapshot", f"arn:aws:ec2:*::snapshot/{snapshot}")
    )
    assert results(allowed, again) == {snapshot: "success"}


def test_every_snapshot_of_an_image_has_a_result(ec2: Any) -> None:
    root, data = (snapshot_of(ec2, stopped(ec2)) for _ in range(2))
    devices = [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": root}},
        {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": data}},
        {"DeviceName": "/dev/sdg", "Ebs": {"VolumeSize": 1}},
    ]
    baked = available(ec2, register(ec2, root, "web-1", BlockDeviceMappings=devices))
    assert results(ec2, baked) == {root: "success", data: "success"}
