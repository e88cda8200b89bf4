"""Images: how they are found, shared, deprecated, copied and cleaned up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.local.aws.harness import (
    ACCOUNT,
    OTHER_ACCOUNT,
    Cloud,
    available,
    base_image,
    image,
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


@pytest.fixture
def baked(ec2: Any) -> str:
    """An image of one's own."""
    return available(ec2, register(ec2, snapshot_of(ec2, stopped(ec2)), "web-1", Description="nginx"))


def found(ec2: Any, name: str, *values: str, **params: Any) -> list[str]:
    answer = ec2.describe_images(Filters=[{"Name": name, "Values": list(values)}], **params)
    return [one["Name"] for one in answer["Images"]]


@pytest.mark.parametrize(
    ("name", "values", "is_found"),
    [
        ("name", ["web-*"], True),
        ("name", ["web-?"], True),
        ("name", ["web-\\*"], False),
        ("name", ["WEB-1"], False),
        ("name", ["other", "web-1"], True),
        ("state", ["available"], True),
        ("state", ["pending", "failed"], False),
        ("architecture", ["x86_64"], True),
        ("virtualization-type", ["hvm"], True),
        ("root-device-type", ["ebs"], True),
        ("root-device-name", ["/dev/xvda"], True),
        ("ena-support", ["true"], True),
        ("is-public", ["false"], True),
        ("owner-id", [ACCOUNT], True),
        ("description", ["*ginx"], True),
        ("block-device-mapping.volume-size", ["1"], True),
        ("tag:team", ["*"], False),
    ],
)
def test_images_are_found_by_filters(ec2: Any, baked: str, name: str, values: list[str], is_found: bool) -> None:
    assert found(ec2, name, *values, Owners=["self"]) == (["web-1"] if is_found else [])


def test_owners_are_ids_and_aliases(ec2: Any, baked: str) -> None:
    def by(*owners: str) -> set[str]:
        return {one["OwnerId"] for one in ec2.describe_images(Owners=list(owners))["Images"]}

    assert by("self") == by(ACCOUNT) == {ACCOUNT}
    assert by("136693071363") == {"136693071363"}
    assert by("self", "136693071363") == {ACCOUNT, "136693071363"}
    assert by("amazon") == by("aws-marketplace") == by(OTHER_ACCOUNT) == set()


def test_pages_miss_nothing_and_repeat_nothing(ec2: Any, baked: str) -> None:
    [mapping] = image(ec2, baked)["BlockDeviceMappings"]
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        available(ec2, register(ec2, mapping["Ebs"]["SnapshotId"], name))
    first = ec2.describe_images(Owners=["self"], MaxResults=2)
    # What goes away or comes between two pages does not move the others.
    ec2.deregister_image(ImageId=baked)
    seen = [one["Name"] for one in first["Images"]]
    token = first["NextToken"]
    while token:
        answer = ec2.describe_images(Owners=["self"], MaxResults=2, NextToken=token)
        seen += [one["Name"] for one in answer["Images"]]
        token = answer.get("NextToken")
    assert seen == ["web-1", *names]


def test_an_image_is_for_others_once_it_is_shared(cloud: Cloud, ec2: Any, baked: str) -> None:
    other = cloud.client(other=True)
    with refused("InvalidAMIID.NotFound"):
        other.describe_images(ImageIds=[baked])
    ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    answer = ec2.describe_image_attribute(ImageId=baked, Attribute="launchPermission")
    assert answer["LaunchPermissions"] == [{"UserId": OTHER_ACCOUNT}]
    assert found(other, "name", "web-1", ExecutableUsers=["self"]) == ["web-1"]
    running(other, ImageId=baked)
    with refused("AuthFailure"):
        other.deregister_image(ImageId=baked)
    ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Remove": [{"UserId": OTHER_ACCOUNT}]})
    with refused("InvalidAMIID.NotFound"):
        launch(other, ImageId=baked)


def test_permissions_are_changed_in_the_older_form_too_and_reset(ec2: Any, baked: str) -> None:
    ec2.disable_image_block_public_access()
    ec2.modify_image_attribute(
        ImageId=baked, Attribute="launchPermission", OperationType="add", UserGroups=["all"], UserIds=[OTHER_ACCOUNT]
    )
    assert image(ec2, baked)["Public"]
    ec2.reset_image_attribute(ImageId=baked, Attribute="launchPermission")
    assert not image(ec2, baked)["Public"]


def test_an_encrypted_image_is_never_public(ec2: Any, baked: str) -> None:
    copy = ec2.copy_image(SourceRegion="us-east-1", SourceImageId=baked, Name="secret", Encrypted=True)["ImageId"]
    available(ec2, copy)
    ec2.disable_image_block_public_access()
    with refused("UnsupportedOperation"):
        ec2.modify_image_attribute(ImageId=copy, LaunchPermission={"Add": [{"Group": "all"}]})


def test_a_deprecated_image_is_hidden_from_others_when_its_time_has_come(cloud: Cloud, ec2: Any, baked: str) -> None:
    other = cloud.client(other=True)
    ec2.disable_image_block_public_access()
    ec2.modify_image_attribute(ImageId=baked, LaunchPermission={"Add": [{"Group": "all"}]})
    backend = cloud.gateway.backend
    ec2.enable_image_deprecation(ImageId=baked, DeprecateAt=backend.clock.now() + timedelta(days=1))
    assert found(other, "name", "web-1") == ["web-1"]
    backend.clock.advance(2 * 86400)
    assert found(other, "name", "web-1") == []
    assert found(other, "name", "web-1", IncludeDeprecated=True) == ["web-1"]
    assert found(ec2, "name", "web-1") == ["web-1"], "its owner sees it always"
    with refused("InvalidParameterValue"):
        ec2.enable_image_deprecation(ImageId=baked, DeprecateAt=backend.clock.now() - timedelta(days=1))
    ec2.disable_image_deprecation(ImageId=baked)
    assert found(other, "name", "web-1") == ["web-1"]


def test_the_description_can_be_changed(ec2: Any, baked: str) -> None:
    ec2.modify_image_attribute(ImageId=baked, Description={"Value": "apache"})
    assert image(ec2, baked)["Description"] == "apache"
    ec2.modify_image_attribute(ImageId=baked, Attribute="description", Value="lighttpd")
    assert ec2.describe_image_attribute(ImageId=baked, Attribute="description")["Description"]["Value"] == "lighttpd"


def test_a_name_is_free_again_once_its_image_is_deregistered(ec2: Any, baked: str) -> None:
    [mapping] = image(ec2, baked)["BlockDeviceMappings"]
    ec2.deregister_image(ImageId=baked)
    assert found(ec2, "name", "web-1") == []
    register(ec2, mapping["Ebs"]["SnapshotId"], "web-1")


def test_an_image_that_was_just_deregistered_is_an_empty_result_beside_the_others(ec2: Any, baked: str) -> None:
    ec2.deregister_image(ImageId=baked)
    assert ec2.describe_images(ImageIds=[baked])["Images"] == []
    answer = ec2.describe_images(ImageIds=[base_image(ec2), baked])
    assert [one["ImageId"] for one in answer["Images"]] == [base_image(ec2)]
    with refused("InvalidAMIID.NotFound", match="ami-00000000000000001"):
        ec2.describe_images(ImageIds=[baked, "ami-00000000000000001"])


def test_a_deregistered_image_is_unknown_an_hour_later_and_after_its_last_instance(
    cloud: Cloud, ec2: Any, baked: str
) -> None:
    instance_id = running(ec2, ImageId=baked)
    ec2.deregister_image(ImageId=baked)
    cloud.gateway.backend.clock.advance(2 * 3600)
    assert ec2.describe_images(ImageIds=[baked])["Images"] == []
    ec2.terminate_instances(InstanceIds=[instance_id])
    until(lambda: state(ec2, instance_id) == "terminated")
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[baked])


def test_a_deregistered_image_is_an_empty_result_after_a_restart(cloud: Cloud, ec2: Any, baked: str) -> None:
    ec2.deregister_image(ImageId=baked)
    cloud.restart()
    assert cloud.client().describe_images(ImageIds=[baked])["Images"] == []


def test_a_deregistered_image_exists_for_those_that_could_launch_it_and_for_no_others(
    cloud: Cloud, ec2: Any, baked: str
) -> None:
    other = cloud.client(other=True)
    [mapping] = image(ec2, baked)["BlockDeviceMappings"]
    shared = available(ec2, register(ec2, mapping["Ebs"]["SnapshotId"], "shared"))
    ec2.modify_image_attribute(ImageId=shared, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    for each in (baked, shared):
        ec2.deregister_image(ImageId=each)
    assert other.describe_images(ImageIds=[shared])["Images"] == []
    with refused("InvalidAMIID.NotFound"):
        other.describe_images(ImageIds=[baked])
    with refused("InvalidAMIID.NotFound"):
        cloud.client(region="eu-west-1").describe_images(ImageIds=[baked])


@pytest.mark.parametrize(
    "use",
    [
        lambda ec2, id: launch(ec2, ImageId=id),
        lambda ec2, id: ec2.deregister_image(ImageId=id),
        lambda ec2, id: ec2.copy_image(SourceRegion="us-east-1", SourceImageId=id, Name="copy"),
        lambda ec2, id: ec2.describe_image_attribute(ImageId=id, Attribute="launchPermission"),
        lambda ec2, id: ec2.modify_image_attribute(ImageId=id, Description={"Value": "x"}),
        lambda ec2, id: ec2.reset_image_attribute(ImageId=id, Attribute="launchPermission"),
        lambda ec2, id: ec2.enable_image_deprecation(ImageId=id, DeprecateAt="2040-01-01T00:00:00Z"),
        lambda ec2, id: ec2.disable_image_deprecation(ImageId=id),
        lambda ec2, id: ec2.enable_image_deregistration_protection(ImageId=id),
        lambda ec2, id: ec2.disable_image_deregistration_protection(ImageId=id),
    ],
    ids=["launch", "deregister", "copy", "describe", "modify", "reset", "deprecate", "undo", "protect", "unprotect"],
)
def test_a_deregistered_image_is_unavailable(ec2: Any, baked: str, use: Callable[[Any, str], object]) -> None:
    ec2.deregister_image(ImageId=baked)
    with refused("InvalidAMIID.Unavailable", match=f"The image ID '{baked}' is no longer available"):
        use(ec2, baked)


def test_a_name_is_taken_in_one_region_only(cloud: Cloud, ec2: Any, baked: str) -> None:
    there = cloud.client(region="eu-west-1")
    copied = there.copy_image(SourceRegion="us-east-1", SourceImageId=baked, Name="web-1")["ImageId"]
    assert image(there, available(there, copied))["Name"] == "web-1"


def test_copies_cost_no_disk(cloud: Cloud, ec2: Any, baked: str) -> None:
    disks = cloud.gateway.backend.disks
    before = disks.used_bytes()
    for region in ("eu-west-1", "us-west-2", "ap-south-1", "sa-east-1"):
        there = cloud.client(region=region)
        there.describe_images(Owners=["self"])
        copied = there.copy_image(SourceRegion="us-east-1", SourceImageId=baked, Name="web-1")["ImageId"]
        available(there, copied)
    assert disks.used_bytes() == before


def test_a_copy_outlives_its_source(cloud: Cloud, ec2: Any, baked: str) -> None:
    there = cloud.client(region="eu-west-1")
    copied = there.copy_image(SourceRegion="us-east-1", SourceImageId=baked, Name="web-1")["ImageId"]
    available(there, copied)
    ec2.deregister_image(ImageId=baked, DeleteAssociatedSnapshots=True)
    running(there, ImageId=copied)


def test_copied_tags_come_along_if_asked(ec2: Any, baked: str) -> None:
    ec2.create_tags(Resources=[baked], Tags=[{"Key": "team", "Value": "web"}])
    for name, asked in (("with", True), ("without", False)):
        copied = ec2.copy_image(SourceRegion="us-east-1", SourceImageId=baked, Name=name, CopyImageTags=asked)
        tags = image(ec2, available(ec2, copied["ImageId"])).get("Tags", [])
        assert tags == ([{"Key": "team", "Value": "web"}] if asked else [])


def test_a_shared_snapshot_can_be_used_by_the_other_account(cloud: Cloud, ec2: Any) -> None:
    snapshot_id = snapshot_of(ec2, stopped(ec2))
    other = cloud.client(other=True)
    with refused("InvalidSnapshot.NotFound"):
        other.describe_snapshots(SnapshotIds=[snapshot_id])
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot_id,
        Attribute="createVolumePermission",
        OperationType="add",
        UserIds=[OTHER_ACCOUNT],
    )
    answer = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    assert answer["CreateVolumePermissions"] == [{"UserId": OTHER_ACCOUNT}]
    copied = other.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=snapshot_id)["SnapshotId"]
    until(lambda: other.describe_snapshots(SnapshotIds=[copied])["Snapshots"][0]["State"] == "completed")
    with refused("AuthFailure"):
        other.delete_snapshot(SnapshotId=snapshot_id)


def test_all_volumes_are_snapshotted_at_once_with_their_tags(ec2: Any) -> None:
    made = stopped(
        ec2,
        BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2}}],
        TagSpecifications=[{"ResourceType": "volume", "Tags": [{"Key": "team", "Value": "web"}]}],
    )
    answer = ec2.create_snapshots(
        InstanceSpecification={"InstanceId": made},
        Description="both",
        CopyTagsFromSource="volume",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": [{"Key": "run", "Value": "1"}]}],
    )
    assert sorted(one["VolumeSize"] for one in answer["Snapshots"]) == [1, 2]
    for one in answer["Snapshots"]:
        assert {tag["Key"]: tag["Value"] for tag in one["Tags"]} == {"team": "web", "run": "1"}
    rest = ec2.create_snapshots(InstanceSpecification={"InstanceId": made, "ExcludeBootVolume": True})["Snapshots"]
    assert [one["VolumeSize"] for one in rest] == [2]


def test_a_snapshot_deleted_while_it_is_taken_leaves_no_bytes(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    cloud.gateway.backend.job_queues.set_delay("snapshot", 60)
    taken = ec2.create_snapshot(VolumeId=root_volume(ec2, made))["SnapshotId"]
    ec2.delete_snapshot(SnapshotId=taken)
    cloud.gateway.backend.job_queues.set_delay("snapshot", 0)
    cloud.gateway.backend.job_queues.submit(made, lambda: None).result(5)
    assert not (cloud.disks / "snapshots" / f"{taken}.raw").exists()


def test_debians_image_is_the_same_after_a_restart_and_in_every_store(cloud: Cloud, ec2: Any) -> None:
    before = base_image(ec2)
    cloud.restart()
    assert base_image(cloud.client()) == before
    described = image(cloud.client(), before)
    assert (described["Public"], described["EnaSupport"], described["VirtualizationType"]) == (True, True, "hvm")
    assert described["BootMode"] == "uefi-preferred"
