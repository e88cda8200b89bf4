"""Disabled images: not launched, not shared, not listed, and enabled again."""

from __future__ import annotations

from typing import Any

from tests.local.aws.harness import Cloud, bake, image, refused, running, share, state


def disabled(ec2: Any, **params: Any) -> list[Any]:
    return list(ec2.describe_images(Owners=["self"], IncludeDisabled=True, **params)["Images"])


def test_a_disabled_image_is_listed_only_if_the_request_says_so(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    assert ec2.disable_image(ImageId=baked)["Return"] is True
    cloud.restart()
    ec2 = cloud.client()
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    assert ec2.describe_images(ImageIds=[baked])["Images"] == []
    assert [(row["ImageId"], row["State"]) for row in disabled(ec2)] == [(baked, "disabled")]
    by_state = [{"Name": "state", "Values": ["disabled"]}]
    assert [row["ImageId"] for row in disabled(ec2, Filters=by_state)] == [baked]


def test_an_enabled_image_is_launched_again_and_its_instances_never_stopped(ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    before = running(ec2, ImageId=baked)
    for _ in range(2):
        ec2.disable_image(ImageId=baked)
    assert state(ec2, before) == "running"
    for _ in range(2):
        ec2.enable_image(ImageId=baked)
    assert image(ec2, baked)["State"] == "available"
    running(ec2, ImageId=baked)


def test_other_accounts_lose_a_disabled_image_until_it_is_shared_again(cloud: Cloud, ec2: Any) -> None:
    baked, other = bake(ec2, "web-1"), cloud.client(other=True)
    share(ec2, baked)
    assert image(other, baked)["State"] == "available"
    ec2.disable_image(ImageId=baked)
    with refused("InvalidAMIID.NotFound"):
        other.describe_images(ImageIds=[baked], IncludeDisabled=True)
    ec2.enable_image(ImageId=baked)
    with refused("InvalidAMIID.NotFound"):
        other.describe_images(ImageIds=[baked])
    share(ec2, baked)
    assert image(other, baked)["State"] == "available"


def test_a_disabled_image_can_be_deregistered_with_its_snapshot(ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    ec2.disable_image(ImageId=baked)
    answer = ec2.deregister_image(ImageId=baked, DeleteAssociatedSnapshots=True)
    assert [row["ReturnCode"] for row in answer["DeleteSnapshotResults"]] == ["success"]
