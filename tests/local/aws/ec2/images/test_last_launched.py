"""The time of an image's last launch is known a day later, and to its owner."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from imagepipe.local.aws.ec2.images.last_launched import last_launched, with_launch
from imagepipe.local.aws.state.records import Image
from tests.local.aws.harness import Cloud, bake, image, launch, share

DAY = 24 * 3600
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def attribute(ec2: Any, image_id: str) -> str | None:
    answer = ec2.describe_image_attribute(ImageId=image_id, Attribute="lastLaunchedTime")
    return answer["LastLaunchedTime"].get("Value")  # type: ignore[no-any-return]


def test_a_launch_is_reported_a_day_later_also_after_a_restart(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    launch(ec2, ImageId=baked)
    assert "LastLaunchedTime" not in image(ec2, baked)
    assert attribute(ec2, baked) is None
    cloud.restart()
    cloud.admin("POST", "clock", {"advance": DAY})
    ec2 = cloud.client()
    assert image(ec2, baked)["LastLaunchedTime"] == attribute(ec2, baked) is not None


def test_only_the_owner_learns_it(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    share(ec2, baked)
    launch(ec2, ImageId=baked)
    cloud.admin("POST", "clock", {"advance": DAY})
    assert "LastLaunchedTime" not in image(cloud.client(other=True), baked)


def test_an_image_that_is_launched_all_the_time_has_a_time_and_a_short_list() -> None:
    record = Image(
        id="ami-1", account="0", region="x", root_device="a", name="n", state="available", created=NOON, mappings=()
    )
    now = NOON
    for minutes in range(0, 72 * 60, 7):
        now = NOON + timedelta(minutes=minutes)
        record = with_launch(record, now)
    reported = last_launched(record, now)
    assert reported is not None
    age = now - datetime.fromisoformat(reported)
    assert timedelta(hours=24) <= age < timedelta(hours=25, minutes=7)
    assert len(record.launches) <= 26
