"""Images of earlier runs are used only while they are available, and their copies take over their texts."""

from __future__ import annotations

import pytest

from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.publish.reuse import ExistingText, UseExisting
from imagepipe.values import Image
from tests.account import Account
from tests.local.aws import harness

TAGS = {"team": "web", "imagepipe:spec": "web", "imagepipe:run": "r0", "imagepipe:fingerprint": "f0", "Name": "web-1"}


def _image(account: Account) -> Image:
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    id = harness.available(ec2, harness.register(ec2, snapshot, "web-1", Description="of the web"))
    ec2.create_tags(Resources=[id], Tags=[{"Key": key, "Value": value} for key, value in TAGS.items()])
    return Image(id, "us-east-1", "web-1", (snapshot,))


def test_an_image_of_an_earlier_run_is_described(account: Account) -> None:
    image = _image(account)
    assert UseExisting(account.ec2, image.id).run(account.context()) == image


def test_an_image_that_was_disabled_or_deregistered_meanwhile_is_not_used(account: Account) -> None:
    image = _image(account)
    account.cloud.client().deregister_image(ImageId=image.id)
    with pytest.raises(CloudError, match=f"{image.id} in us-east-1 does not exist"):
        UseExisting(account.ec2, image.id).run(account.context())


def test_copies_take_over_name_description_tags_and_fingerprint_but_not_the_run(account: Account) -> None:
    image = _image(account)
    stage = ExistingText(account.ec2, Ref("image"), ("us-west-2", "eu-west-1"))
    texts = stage.run(account.context(image=image))
    assert texts.keys() == {"us-west-2", "eu-west-1"}
    assert texts["us-west-2"].name == "web-1"
    assert texts["us-west-2"].description == "of the web"
    assert texts["us-west-2"].tags == {"team": "web", "imagepipe:fingerprint": "f0", "Name": "web-1"}
