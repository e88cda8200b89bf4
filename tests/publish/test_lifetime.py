"""Deprecation and protection of an image that exists."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from imagepipe.engine.stage import Ref
from imagepipe.publish.attribute import ImageAttribute
from imagepipe.publish.lifetime import DeprecateImage, ProtectImage, RemoveDeprecation, RemoveProtection
from imagepipe.publish.tag import TagImage
from imagepipe.values import Image
from tests.account import Account
from tests.local.aws import harness
from tests.published import kept_image

DAY = 86400.0
IMAGE: Ref[Image] = Ref("image")


def _described(account: Account, image: Image) -> dict[str, Any]:
    found: dict[str, Any] = harness.image(account.cloud.client(), image.id)
    return found


def _apply(account: Account, stage: ImageAttribute, image: Image) -> list[str]:
    """Apply a stage, twice; return the differences before."""
    before = stage.differences(_described(account, image))
    for _ in range(2):
        stage.run(account.context(image=image))
    assert stage.differences(_described(account, image)) == []
    return before


def test_an_image_is_deprecated_so_long_after_its_creation(account: Account) -> None:
    image = kept_image(account)
    [line] = _apply(account, DeprecateImage(account.ec2, IMAGE, 90 * DAY), image)
    assert line.startswith("~ deprecated at 20")
    found = _described(account, image)
    at, created = (datetime.fromisoformat(found[key]) for key in ("DeprecationTime", "CreationDate"))
    assert abs(at - created - timedelta(days=90)) <= timedelta(minutes=1)
    [line] = _apply(account, DeprecateImage(account.ec2, IMAGE, 30 * DAY), image)
    assert ", not 20" in line


def test_an_image_that_is_older_than_that_is_deprecated_at_once(account: Account) -> None:
    image = kept_image(account)
    DeprecateImage(account.ec2, IMAGE, 1.0).run(account.context(image=image))
    at = datetime.fromisoformat(_described(account, image)["DeprecationTime"])
    assert at - account.clock.now() <= timedelta(minutes=2)


def test_a_deprecation_is_removed(account: Account) -> None:
    image = kept_image(account)
    assert RemoveDeprecation(account.ec2, IMAGE).differences(_described(account, image)) == []
    _apply(account, DeprecateImage(account.ec2, IMAGE, DAY), image)
    [line] = _apply(account, RemoveDeprecation(account.ec2, IMAGE), image)
    assert line.startswith("- no longer deprecated at 20")
    assert "DeprecationTime" not in _described(account, image)


def test_protection_is_set_changed_and_removed(account: Account) -> None:
    image = kept_image(account)
    steps = {
        "enabled-without-cooldown": ProtectImage(account.ec2, IMAGE, has_cooldown=False),
        "enabled-with-cooldown": ProtectImage(account.ec2, IMAGE, has_cooldown=True),
        "disabled": RemoveProtection(account.ec2, IMAGE),
    }
    for state, stage in steps.items():
        assert len(_apply(account, stage, image)) == 1
        assert _described(account, image)["DeregistrationProtection"] == state


def test_tags_are_added_and_changed_but_never_removed(account: Account) -> None:
    image = kept_image(account)
    account.ec2.images.tag([image.id], {"team": "old", "cost": "1"})
    assert _apply(account, TagImage(account.ec2, IMAGE, {"team": "web"}), image) == ["~ tag team=web"]
    found = {tag["Key"]: tag["Value"] for tag in _described(account, image)["Tags"]}
    assert (found["team"], found["cost"]) == ("web", "1")
    snapshot = account.ec2.snapshots.describe_many(image.snapshots)[image.snapshots[0]]
    assert {"Key": "team", "Value": "web"} in snapshot["Tags"]
