from __future__ import annotations

import pytest

from imagepipe.cloud import tags
from imagepipe.cloud.images import Audience
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.publish.replace import ReplaceImage
from imagepipe.values import Image, ImageText
from tests import bundled
from tests.account import Account
from tests.local.aws import harness

OTHER = "210987654321"


def _image(account: Account, name: str, **more: object) -> Image:
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    image = harness.available(ec2, harness.register(ec2, snapshot, name, **more))
    ec2.create_tags(Resources=[image, snapshot], Tags=[{"Key": tags.STATE, "Value": tags.KEPT}])
    return Image(image, "us-east-1", name, (snapshot,))


def _take(account: Account, baked: Image, audience: Audience | None = None) -> Image:
    stage = ReplaceImage(account.ec2, RunTags("r1", "web"), Ref("kept"), Ref("wanted"), audience or Audience())
    return stage.run(account.context(kept=(baked,), wanted={"us-east-1": ImageText("web", "", {})}))


def test_the_new_image_has_the_name_and_the_old_one_is_gone_with_its_snapshots(account: Account) -> None:
    old, baked = _image(account, "web"), _image(account, "web-r1", Description="new")
    final = _take(account, baked)
    found = account.cloud.client().describe_images(Owners=["self"])["Images"]
    assert [(image["ImageId"], image["Name"], image["Description"]) for image in found] == [(final.id, "web", "new")]
    assert final.snapshots == baked.snapshots
    assert set(account.ec2.snapshots.describe_many([*old.snapshots, *baked.snapshots])) == set(baked.snapshots)


def test_the_new_image_is_kept_from_its_create_call_and_shared_as_the_spec_says(account: Account) -> None:
    _image(account, "web")
    final = _take(account, _image(account, "web-r1"), Audience((OTHER,)))
    described = harness.image(account.cloud.client(), final.id)
    assert tags.mapping(described["Tags"])[tags.STATE] == tags.KEPT
    answer = account.cloud.client().describe_image_attribute(ImageId=final.id, Attribute="launchPermission")
    assert answer["LaunchPermissions"] == [{"UserId": OTHER}]


def test_a_name_that_was_free_here_is_the_baked_images_own(account: Account) -> None:
    baked = _image(account, "web")
    assert _take(account, baked) == baked


def test_the_new_image_is_there_under_its_own_name_if_the_name_cannot_be_taken(account: Account) -> None:
    _image(account, "web")
    baked = _image(account, "web-r1")
    account.fault("refuse", "RegisterImage", code="UnauthorizedOperation", status=403, times=9)
    with pytest.raises(CloudError, match=f"the new image is kept as {baked.id} 'web-r1' in us-east-1"):
        _take(account, baked)
    assert [image.id for image in account.ec2.images.own_named("web-r1")] == [baked.id]


def test_a_snapshot_that_another_image_uses_is_left_and_said(account: Account) -> None:
    old = _image(account, "web")
    ec2 = account.cloud.client()
    harness.available(ec2, harness.register(ec2, old.snapshots[0], "other"))
    final = _take(account, _image(account, "web-r1"))
    assert final.name == "web"
    assert set(account.ec2.snapshots.describe_many(list(old.snapshots))) == set(old.snapshots)
    assert any("left" in getattr(event, "text", "") and old.snapshots[0] in event.text for event in account.seen)  # type: ignore[union-attr]


def _bundled(account: Account, name: str, folder: str) -> Image:
    return bundled.registered(account, bundled.put(account, folder), name, state=tags.KEPT)


def test_an_instance_store_image_takes_the_name_with_its_bundle_and_the_old_ones_is_deleted(account: Account) -> None:
    old, baked = _bundled(account, "web", "web/old"), _bundled(account, "web-r1", "web/new")
    before = harness.image(account.cloud.client(), baked.id)
    final = _take(account, baked)
    assert (final.name, final.bundle) == ("web", baked.bundle)
    assert bundled.keys(account) == [f"web/new/{name}" for name in bundled.FILES]
    [found] = account.cloud.client().describe_images(Owners=["self"])["Images"]
    same = ("ImageLocation", "Architecture", "VirtualizationType", "EnaSupport", "SriovNetSupport", "ImdsSupport")
    assert {key: found[key] for key in same} == {key: before[key] for key in same}
    assert found["BlockDeviceMappings"] == before["BlockDeviceMappings"]
    assert found["ImageId"] not in (old.id, baked.id)


def test_an_old_bundle_that_another_image_is_registered_from_is_left_and_said(account: Account) -> None:
    old = _bundled(account, "web", "web/old")
    other = bundled.registered(account, old.bundle or "", "other")
    _take(account, _bundled(account, "web-r1", "web/new"))
    assert len(bundled.keys(account)) == 2 * len(bundled.FILES)
    assert [text for text in _said(account) if "left" in text] == [
        f"deleting {old.bundle}: left in place: also used by {other.id}"
    ]


def test_an_old_bundle_whose_manifest_is_gone_is_said(account: Account) -> None:
    old = _bundled(account, "web", "web/old")
    account.s3.delete(bundled.BUCKET, ["web/old/image.manifest.xml"])
    assert _take(account, _bundled(account, "web-r1", "web/new")).name == "web"
    assert any(text.startswith(f"deleting {old.bundle}: left in place: reading ") for text in _said(account))


def _said(account: Account) -> list[str]:
    return [text for event in account.seen if (text := getattr(event, "text", ""))]
