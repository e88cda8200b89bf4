from __future__ import annotations

import pytest

from imagepipe.cleanup.undoers import Undoers
from imagepipe.clock import SystemClock
from imagepipe.cloud import tags
from imagepipe.engine.journal import Lifetime, State
from imagepipe.engine.stage import Ref
from imagepipe.errors import CloudError
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.publish.keep import Keep
from imagepipe.values import Image
from tests import bundled
from tests.account import Account
from tests.local.aws import harness

REGIONS = ("us-east-1", "us-west-2")


def _images(account: Account) -> dict[str, Image]:
    made = {}
    for region in REGIONS:
        ec2 = account.cloud.client(region=region)
        snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
        id = harness.available(ec2, harness.register(ec2, snapshot, "web"))
        account.regions[region].images.tag([id, snapshot], {tags.STATE: tags.UNFINISHED})
        claim = account.journal.intend("image", region, lifetime=Lifetime.PRODUCT, stage="s")
        account.journal.bind(claim, id)
        made[region] = Image(id, region, "web", (snapshot,))
    return made


def _keep() -> tuple[Ref[Image], ...]:
    return tuple(Ref(region) for region in REGIONS)


def _states(account: Account, images: dict[str, Image]) -> set[str]:
    found = set()
    for region, image in images.items():
        ec2 = account.cloud.client(region=region)
        rows = (
            ec2.describe_images(ImageIds=[image.id])["Images"]
            + ec2.describe_snapshots(SnapshotIds=list(image.snapshots))["Snapshots"]
        )
        found |= {tags.mapping(row["Tags"])[tags.STATE] for row in rows}
    return found


def test_every_image_and_snapshot_is_kept_in_the_cloud_and_in_the_journal(account: Account) -> None:
    images = _images(account)
    everywhere = {region: account.regions[region] for region in REGIONS}
    kept = Keep(everywhere, _keep()).run(account.context(**images))
    assert kept == tuple(images.values())
    assert _states(account, images) == {tags.KEPT}
    assert {claim.state for claim in account.journal.claims()} == {State.KEPT}


def test_a_bundle_is_kept_in_the_journal_with_the_image_that_was_registered_from_it(account: Account) -> None:
    location = bundled.put(account, "a,b/t1")  # a key may contain commas, which otherwise separate ids
    image = bundled.registered(account, location, state=tags.UNFINISHED)
    for kind, id in (("bundle", location), ("image", image.id)):
        account.journal.bind(account.journal.intend(kind, "us-east-1", lifetime=Lifetime.PRODUCT, stage="s"), id)
    Keep({"us-east-1": account.ec2}, (Ref("register"),)).run(account.context(register=image))
    assert {claim.kind: claim.state for claim in account.journal.claims()} == {
        "bundle": State.KEPT,
        "image": State.KEPT,
    }


def test_where_one_region_fails_none_is_kept(account: Account) -> None:
    images = _images(account)
    everywhere = {region: account.regions[region] for region in REGIONS}
    images["us-west-2"] = Image("ami-0123456789abcdef0", "us-west-2", "web", images["us-west-2"].snapshots)
    with pytest.raises(CloudError):
        Keep(everywhere, _keep()).run(account.context(**images))
    assert _states(account, {"us-east-1": images["us-east-1"]}) == {tags.UNFINISHED}
    assert {claim.state for claim in account.journal.claims()} == {State.BOUND}


def test_where_the_tags_cannot_be_changed_back_the_journal_says_that_none_is_kept(account: Account) -> None:
    images = _images(account)
    for region, image in images.items():
        claim = account.journal.intend("snapshots", region, lifetime=Lifetime.PRODUCT, stage="s")
        account.journal.bind(claim, ",".join(image.snapshots))
    everywhere = {region: account.regions[region] for region in REGIONS}
    # From the second call on: the second region's tag is refused, and so is the attempt to undo the first one's.
    expired = Fault(effect="refuse", action="CreateTags", code="RequestExpired", after=1)
    account.cloud.gateway.backend.faults.add(expired)
    with pytest.raises(CloudError):
        Keep(everywhere, _keep()).run(account.context(**images))
    assert {claim.state for claim in account.journal.claims()} == {State.UNKEPT}
    account.cloud.gateway.backend.faults.clear()
    undoers = Undoers(account.regions, SystemClock())
    for claim in account.journal.claims():  # the images' claims are first here
        undoers.undoers()[claim.kind](claim)
    for region in REGIONS:
        ec2 = account.cloud.client(region=region)
        assert ec2.describe_images(Owners=["self"])["Images"] == []
        assert ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"] == []


def test_what_another_spec_of_the_run_has_not_finished_is_not_kept(account: Account) -> None:
    images = _images(account)
    unfinished = account.journal.intend("image", "us-east-1", lifetime=Lifetime.PRODUCT, stage="other/capture")
    account.journal.bind(unfinished, "ami-0123456789abcdef0")
    pending = account.journal.intend("image", "us-east-1", lifetime=Lifetime.PRODUCT, stage="other/copy")
    everywhere = {region: account.regions[region] for region in REGIONS}
    Keep(everywhere, _keep()).run(account.context(**images))
    still_open = {claim.key for claim in account.journal.claims() if claim.is_open()}
    assert still_open == {unfinished.key, pending.key}
