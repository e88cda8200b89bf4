"""Recycle Bin: deregistered images and deleted snapshots that a retention rule keeps, until their time ends."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import (
    ACCOUNT,
    Cloud,
    available,
    bake,
    caller,
    image,
    may,
    only_snapshot,
    refused,
    register,
    retain,
    running,
    share,
    snapshot_of,
    stopped,
)

DAY = 24 * 3600


def images_in_bin(ec2: Any, **params: Any) -> list[str]:
    return [row["ImageId"] for row in ec2.list_images_in_recycle_bin(**params)["Images"]]


def snapshots_in_bin(ec2: Any, **params: Any) -> list[str]:
    return [row["SnapshotId"] for row in ec2.list_snapshots_in_recycle_bin(**params)["Snapshots"]]


def retire(ec2: Any, image_id: str) -> str:
    """Deregister an image with its snapshot; the snapshot's id."""
    snapshot = only_snapshot(ec2, image_id)
    ec2.deregister_image(ImageId=image_id, DeleteAssociatedSnapshots=True)
    return snapshot


def test_without_a_rule_nothing_is_kept(cloud: Cloud, ec2: Any) -> None:
    snapshot = retire(ec2, bake(ec2, "web-1"))
    assert images_in_bin(ec2) == snapshots_in_bin(ec2) == []
    assert not cloud.gateway.backend.disks.snapshot_path(snapshot).exists()


def test_an_image_comes_back_as_it_was_after_a_restart_and_its_bytes_boot(cloud: Cloud, ec2: Any) -> None:
    for kind in ("EC2_IMAGE", "EBS_SNAPSHOT"):
        retain(cloud, kind)
    baked = bake(ec2, "web-1", Description="nginx")
    ec2.create_tags(Resources=[baked], Tags=[{"Key": "team", "Value": "images"}])
    share(ec2, baked)
    before = image(ec2, baked)
    path = cloud.gateway.backend.disks.snapshot_path(only_snapshot(ec2, baked))
    content = path.read_bytes()
    snapshot = retire(ec2, baked)
    cloud.restart()
    ec2 = cloud.client()
    assert ec2.describe_images(ImageIds=[baked])["Images"] == []
    with refused("InvalidSnapshot.NotFound"):
        ec2.describe_snapshots(SnapshotIds=[snapshot])
    [listed] = ec2.list_images_in_recycle_bin(ImageIds=[baked])["Images"]
    assert (listed["Name"], listed["Description"]) == ("web-1", "nginx")
    assert (listed["RecycleBinExitTime"] - listed["RecycleBinEnterTime"]).days == 7
    [kept] = ec2.list_snapshots_in_recycle_bin(SnapshotIds=[snapshot])["Snapshots"]
    assert (kept["RecycleBinExitTime"] - kept["RecycleBinEnterTime"]).days == 7
    with refused("InvalidSnapshot.NotFound", match=snapshot):
        ec2.restore_image_from_recycle_bin(ImageId=baked)
    restored = ec2.restore_snapshot_from_recycle_bin(SnapshotId=snapshot)
    assert (restored["SnapshotId"], restored["State"], restored["OwnerId"]) == (snapshot, "completed", ACCOUNT)
    assert ec2.restore_image_from_recycle_bin(ImageId=baked)["Return"] is True
    assert image(ec2, baked) == before
    assert image(cloud.client(other=True), baked)["Name"] == "web-1"
    assert images_in_bin(ec2) == snapshots_in_bin(ec2) == []
    assert path.read_bytes() == content
    running(ec2, ImageId=baked)


def test_bytes_are_kept_until_the_time_ends_and_deleted_then(cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EBS_SNAPSHOT", days=2)
    snapshot = snapshot_of(ec2, stopped(ec2))
    ec2.delete_snapshot(SnapshotId=snapshot)
    path = cloud.gateway.backend.disks.snapshot_path(snapshot)
    cloud.admin("POST", "clock", {"advance": 2 * DAY - 60})
    cloud.restart()
    assert path.exists()
    assert snapshots_in_bin(cloud.client()) == [snapshot]
    cloud.admin("POST", "clock", {"advance": 60})
    assert not path.exists()
    assert snapshots_in_bin(cloud.client()) == []
    with refused("InvalidSnapshot.NotFound"):
        cloud.client().restore_snapshot_from_recycle_bin(SnapshotId=snapshot)


def test_a_cloud_that_did_not_run_when_the_time_ended_deletes_the_bytes_at_its_start(cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EBS_SNAPSHOT", days=1)
    snapshot = snapshot_of(ec2, stopped(ec2))
    ec2.delete_snapshot(SnapshotId=snapshot)
    cloud.gateway.backend.clock.advance(DAY)
    path = cloud.gateway.backend.disks.snapshot_path(snapshot)
    assert path.exists()
    cloud.restart()
    assert not path.exists()


@pytest.mark.parametrize(
    ("rule", "is_kept"),
    [
        ({}, True),
        ({"ResourceTags": [{"ResourceTagKey": "keep", "ResourceTagValue": "yes"}]}, True),
        ({"ResourceTags": [{"ResourceTagKey": "keep"}]}, True),
        ({"ResourceTags": [{"ResourceTagKey": "keep", "ResourceTagValue": "no"}]}, False),
        ({"ResourceTags": [{"ResourceTagKey": "other"}]}, False),
        ({"ExcludeResourceTags": [{"ResourceTagKey": "keep", "ResourceTagValue": "yes"}]}, False),
        ({"ExcludeResourceTags": [{"ResourceTagKey": "keep", "ResourceTagValue": "no"}]}, True),
    ],
)
def test_a_rule_selects_by_tags(rule: dict[str, Any], is_kept: bool, cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EC2_IMAGE", **rule)
    baked = bake(ec2, "web-1")
    ec2.create_tags(Resources=[baked], Tags=[{"Key": "keep", "Value": "yes"}])
    ec2.deregister_image(ImageId=baked)
    assert images_in_bin(ec2) == ([baked] if is_kept else [])


def test_the_longest_of_several_rules_counts(cloud: Cloud, ec2: Any) -> None:
    for days in (3, 30, 7):
        retain(cloud, "EC2_IMAGE", days=days)
    baked = bake(ec2, "web-1")
    ec2.deregister_image(ImageId=baked)
    [row] = ec2.list_images_in_recycle_bin()["Images"]
    assert (row["RecycleBinExitTime"] - row["RecycleBinEnterTime"]).days == 30


def test_a_rule_is_for_one_account_region_and_type(cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EC2_IMAGE", other=True)
    retain(cloud, "EBS_SNAPSHOT")
    west = cloud.client(region="us-west-2")
    baked = bake(ec2, "web-1")
    copy = available(west, west.copy_image(SourceRegion="us-east-1", SourceImageId=baked, Name="web-1")["ImageId"])
    far = retire(west, copy)
    near = retire(ec2, baked)
    assert images_in_bin(ec2) == images_in_bin(west) == snapshots_in_bin(west) == []
    assert snapshots_in_bin(ec2) == [near]
    assert not cloud.gateway.backend.disks.snapshot_path(far).exists()


def test_the_bin_is_its_accounts_alone(cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EC2_IMAGE")
    baked = bake(ec2, "web-1")
    ec2.deregister_image(ImageId=baked)
    other = cloud.client(other=True)
    assert images_in_bin(other) == []
    with refused("InvalidAMIID.NotFound"):
        other.restore_image_from_recycle_bin(ImageId=baked)


def test_a_name_is_free_while_its_image_is_in_the_bin(cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EC2_IMAGE")
    baked = bake(ec2, "web-1")
    snapshot = only_snapshot(ec2, baked)
    ec2.deregister_image(ImageId=baked)
    second = register(ec2, snapshot, "web-1")
    with refused("InvalidAMIName.Duplicate"):
        ec2.restore_image_from_recycle_bin(ImageId=baked)
    ec2.deregister_image(ImageId=available(ec2, second))
    ec2.restore_image_from_recycle_bin(ImageId=baked)


def test_an_image_that_failed_and_a_snapshot_that_is_pending_are_not_kept(cloud: Cloud, ec2: Any) -> None:
    for kind in ("EC2_IMAGE", "EBS_SNAPSHOT"):
        retain(cloud, kind)
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 0.01})
    cloud.admin("POST", "delays", {"snapshot": 60})
    pending = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ec2.delete_snapshot(SnapshotId=pending)
    assert snapshots_in_bin(ec2) == []


def test_restoring_needs_a_permission_of_its_own(cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EC2_IMAGE")
    baked = bake(ec2, "web-1")
    ec2.deregister_image(ImageId=baked)
    with refused("UnauthorizedOperation", match="ec2:RestoreImageFromRecycleBin"):
        caller(cloud, may("ec2:List*")).restore_image_from_recycle_bin(ImageId=baked)
    allowed = may("ec2:RestoreImageFromRecycleBin", f"arn:aws:ec2:us-east-1::image/{baked}")
    caller(cloud, allowed).restore_image_from_recycle_bin(ImageId=baked)


def test_tags_are_changed_in_the_bin_and_decide_who_may_restore(cloud: Cloud, ec2: Any) -> None:
    retain(cloud, "EC2_IMAGE")
    baked = bake(ec2, "web-1")
    ec2.create_tags(Resources=[baked], Tags=[{"Key": "team", "Value": "images"}])
    ec2.deregister_image(ImageId=baked)
    mine = caller(cloud, may("ec2:RestoreImageFromRecycleBin", StringEquals={"aws:ResourceTag/owner": "me"}))
    with refused("UnauthorizedOperation"):
        mine.restore_image_from_recycle_bin(ImageId=baked)
    ec2.create_tags(Resources=[baked], Tags=[{"Key": "owner", "Value": "me"}])
    mine.restore_image_from_recycle_bin(ImageId=baked)
    assert {tag["Key"]: tag["Value"] for tag in image(ec2, baked)["Tags"]} == {"team": "images", "owner": "me"}


def test_without_a_rule_a_deregistered_image_has_no_tags_to_change(ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    ec2.deregister_image(ImageId=baked)
    with refused("InvalidAMIID.NotFound"):
        ec2.create_tags(Resources=[baked], Tags=[{"Key": "owner", "Value": "me"}])
