"""The ancestry of images: through copies, instances, regions, accounts and images that are gone."""

from __future__ import annotations

from typing import Any

from tests.local.aws.harness import OTHER_ACCOUNT, Cloud, available, bake, base_image, only_snapshot, running, share


def chain(ec2: Any, image_id: str) -> list[str]:
    return [entry["ImageId"] for entry in ec2.get_image_ancestry(ImageId=image_id)["ImageAncestryEntries"]]


def created(ec2: Any, instance_id: str, name: str) -> str:
    return available(ec2, ec2.create_image(InstanceId=instance_id, Name=name)["ImageId"])


def copied(ec2: Any, source: str, name: str, region: str = "us-east-1") -> str:
    return available(ec2, ec2.copy_image(SourceRegion=region, SourceImageId=source, Name=name)["ImageId"])


def test_a_copy_of_an_image_of_an_instance_descends_from_the_instances_image(cloud: Cloud, ec2: Any) -> None:
    base = base_image(ec2)
    baked = created(ec2, running(ec2), "web-1")
    west = cloud.client(region="us-west-2")
    copy = copied(west, baked, "web-1")
    [first, second, third] = west.get_image_ancestry(ImageId=copy)["ImageAncestryEntries"]
    assert [entry["ImageId"] for entry in (first, second, third)] == [copy, baked, base]
    assert (first["SourceImageId"], first["SourceImageRegion"]) == (baked, "us-east-1")
    assert (second["SourceImageId"], second["SourceImageRegion"]) == (base, "us-east-1")
    assert "SourceImageId" not in third
    assert all(entry["CreationDate"] for entry in (first, second, third))


def test_a_registered_image_is_a_root(ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    assert chain(ec2, baked) == [baked]
    found = ec2.describe_images(ImageIds=[baked])["Images"][0]
    assert not {"SourceImageId", "SourceImageRegion", "SourceInstanceId"} & found.keys()


def test_the_middle_of_a_chain_may_be_gone_and_the_cloud_restarted(cloud: Cloud, ec2: Any) -> None:
    oldest = bake(ec2, "web-1")
    middle = copied(ec2, oldest, "web-2")
    youngest = copied(ec2, middle, "web-3")
    for gone in (middle, oldest):
        ec2.deregister_image(ImageId=gone, DeleteAssociatedSnapshots=True)
    cloud.restart()
    ec2 = cloud.client()
    assert chain(ec2, youngest) == [youngest, middle, oldest]
    ec2.deregister_image(ImageId=youngest)
    cloud.restart()
    assert len(cloud.gateway.backend.database.ancestors) == 0  # nothing descends from them


def test_the_image_of_an_instance_is_remembered_for_images_that_are_made_later(cloud: Cloud, ec2: Any) -> None:
    oldest = bake(ec2, "web-1")
    instance_id = running(ec2, ImageId=oldest)
    ec2.deregister_image(ImageId=oldest)
    cloud.restart()
    ec2 = cloud.client()
    youngest = created(ec2, instance_id, "web-2")
    assert chain(ec2, youngest) == [youngest, oldest]


def test_another_account_sees_where_a_shared_image_came_from(cloud: Cloud, ec2: Any) -> None:
    oldest = bake(ec2, "web-1")
    shared = copied(ec2, oldest, "web-2")
    share(ec2, shared)
    ec2.modify_snapshot_attribute(SnapshotId=only_snapshot(ec2, shared), OperationType="add", UserIds=[OTHER_ACCOUNT])
    other = cloud.client(other=True)
    theirs = copied(other, shared, "theirs")
    assert chain(other, theirs) == [theirs, shared, oldest]


def test_a_chain_has_fifty_entries_at_most(cloud: Cloud, ec2: Any) -> None:
    newest = bake(ec2, "web-0")
    for number in range(1, 52):
        newest = copied(ec2, newest, f"web-{number}")
    assert len(chain(ec2, newest)) == 50
