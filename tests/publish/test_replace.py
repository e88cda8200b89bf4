from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from imagepipe.cloud import tags
from imagepipe.cloud.images import Audience
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.file_store import FileStore
from imagepipe.engine.journal import Journal
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


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("moment", ["before the rest is deleted", "after it", "after the end of the claim"])
def test_a_process_that_dies_while_it_takes_the_name_over_is_continued(account: Account, moment: str) -> None:
    old, baked = _image(account, "web"), _image(account, "web-r1")
    with _dying(moment), pytest.raises(Killed):
        _take(account, baked)
    _reopen(account)
    final = _take(account, baked)
    found = account.cloud.client().describe_images(Owners=["self"])["Images"]
    assert [(image["ImageId"], image["Name"]) for image in found] == [(final.id, "web")]
    assert set(account.ec2.snapshots.describe_many([*old.snapshots, *baked.snapshots])) == set(baked.snapshots)
    assert not [claim for claim in account.journal.claims() if claim.is_open()]


def test_the_bundle_of_the_old_image_is_deleted_by_the_process_that_goes_on(account: Account) -> None:
    for name, prefix in (("web", "web/old"), ("web-r1", "web/new")):
        made = bundled.registered(account, bundled.put(account, prefix), name, state=tags.KEPT)
    with _dying("before the registration"), pytest.raises(Killed):
        _take(account, made)
    _reopen(account)
    _take(account, made)
    assert {key.rpartition("/")[0] for key in bundled.keys(account)} == {"web/new"}


@contextmanager
def _dying(moment: str) -> Iterator[None]:
    """Let the stage die at a moment, in the block."""
    retire, keep = ReplaceImage._retire, Journal.keep

    def die(*args: Any) -> Any:
        raise Killed

    def die_after_retiring(*args: Any) -> Any:
        retire(*args)
        raise Killed

    def die_after_keeping(*args: Any) -> Any:
        keep(*args)
        raise Killed

    places: dict[str, tuple[Any, str, Any]] = {
        "before the registration": (ReplaceImage, "_register_under", die),
        "before the rest is deleted": (ReplaceImage, "_retire", die),
        "after it": (ReplaceImage, "_retire", die_after_retiring),
        "after the end of the claim": (Journal, "keep", die_after_keeping),
    }
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(*places[moment])
        yield


def _reopen(account: Account) -> None:
    """Open the journal as the next process does."""
    account.journal.close()
    account.journal = Journal.reopen(FileStore(account.folder), "r1", account.clock)


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
