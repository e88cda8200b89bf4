"""Deregistration protection, and its cooldown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import Cloud, bake, image, refused

HOUR = 3600


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({}, "enabled-without-cooldown"),
        ({"WithCooldown": False}, "enabled-without-cooldown"),
        ({"WithCooldown": True}, "enabled-with-cooldown"),
    ],
)
def test_protection_is_described_in_ec2s_words(options: dict[str, Any], word: str, cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    assert image(ec2, baked)["DeregistrationProtection"] == "disabled"
    assert ec2.enable_image_deregistration_protection(ImageId=baked, **options)["Return"] == word
    cloud.restart()
    ec2 = cloud.client()
    assert image(ec2, baked)["DeregistrationProtection"] == word
    answer = ec2.describe_image_attribute(ImageId=baked, Attribute="deregistrationProtection")
    assert answer["DeregistrationProtection"]["Value"] == word
    with refused("OperationNotPermitted", match="protection enabled"):
        ec2.deregister_image(ImageId=baked)


def test_an_image_without_cooldown_is_deregistered_at_once(ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    ec2.enable_image_deregistration_protection(ImageId=baked)
    assert ec2.disable_image_deregistration_protection(ImageId=baked)["Return"] == "disabled"
    ec2.deregister_image(ImageId=baked)


def test_a_cooldown_lasts_a_day_and_survives_a_restart_and_another_protection(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    ec2.enable_image_deregistration_protection(ImageId=baked, WithCooldown=True)
    ec2.disable_image_deregistration_protection(ImageId=baked)
    assert image(ec2, baked)["DeregistrationProtection"] == "disabled"
    ec2.enable_image_deregistration_protection(ImageId=baked)
    ec2.disable_image_deregistration_protection(ImageId=baked)
    cloud.restart()
    ec2 = cloud.client()
    cloud.admin("POST", "clock", {"advance": 23 * HOUR})
    with refused("OperationNotPermitted", match="cooldown"):
        ec2.deregister_image(ImageId=baked)
    cloud.admin("POST", "clock", {"advance": HOUR})
    ec2.deregister_image(ImageId=baked)
