"""The sweep finds leftovers of dead runs by their tags, and spares live runs, kept images and everything foreign."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imagepipe.cleanup.sweep import Heartbeat, bundles_left_over, left_over, sweep
from imagepipe.clock import iso
from imagepipe.cloud import tags
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.journal import Claim, Lifetime
from tests import bundled
from tests.account import Account
from tests.local.aws import harness

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
OLD, YOUNG = "20261125T060000Z", "20261125T110000Z"
HOURS = timedelta(hours=3)


def _tagged(
    ec2: Any, id: str, *, started: str = OLD, state: str = tags.TEMPORARY, run: str = "dead1", **more: str
) -> str:
    labels = RunTags(run, "web", started).temporary(f"{run}-c1", "n") | {tags.STATE: state} | more
    ec2.create_tags(Resources=[id], Tags=tags.pairs(labels))
    return id


def _key(ec2: Any, name: str) -> str:
    return str(ec2.create_key_pair(KeyName=name)["KeyPairId"])


def _group(ec2: Any, name: str) -> str:
    return str(ec2.create_security_group(GroupName=name, Description="x")["GroupId"])


def _left(account: Account, **changes: Any) -> list[str]:
    values: dict[str, Any] = {"older_than": HOURS, "now": NOW, "is_alive": lambda run: False, **changes}
    return [thing.id for thing in left_over(account.regions, "us-east-1", **values)]


def test_everything_that_a_dead_run_left_is_cleaned_up_and_then_there_is_nothing(account: Account) -> None:
    ec2 = account.cloud.client()
    instance = _tagged(ec2, harness.running(ec2))
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    image = harness.register(ec2, snapshot, "unfinished")
    ids = [
        instance,
        _tagged(ec2, image, state=tags.UNFINISHED),
        _tagged(ec2, snapshot, state=tags.UNFINISHED),
        _tagged(ec2, _group(ec2, "g")),
        _tagged(ec2, _key(ec2, "k")),
    ]
    things = left_over(account.regions, "us-east-1", older_than=HOURS, now=NOW, is_alive=lambda run: False)
    assert [thing.id for thing in things] == ids
    assert [swept.error for swept in sweep(things, account.regions, account.clock)] == [None] * 5
    assert _left(account) == []
    harness.until(lambda: harness.state(ec2, instance) == "terminated")


@pytest.mark.parametrize(
    "what",
    [
        {"started": YOUNG},
        {tags.EXPIRES: iso(NOW + timedelta(minutes=5))},
        {"state": tags.KEPT},
        {"state": "something of a later version"},
        {"started": "when?"},
        {tags.EXPIRES: "for ever"},
    ],
    ids=["young", "answered for", "kept", "unknown state", "no time", "odd expiry"],
)
def test_what_may_be_of_a_run_that_lives_or_is_its_product_is_left_alone(
    account: Account, what: dict[str, str]
) -> None:
    ec2 = account.cloud.client()
    key = _key(ec2, "k")
    _tagged(ec2, key)
    assert _left(account) == [key], "as it is without"
    ec2.delete_tags(Resources=[key])
    _tagged(ec2, key, **what)
    assert _left(account) == []


def test_what_is_not_ours_is_not_even_looked_at(account: Account) -> None:
    ec2 = account.cloud.client()
    ec2.create_tags(Resources=[_key(ec2, "k")], Tags=[{"Key": tags.STATE, "Value": tags.TEMPORARY}])
    assert _left(account) == []


def test_a_run_that_lives_on_this_machine_is_left_alone(account: Account) -> None:
    ec2 = account.cloud.client()
    key = _tagged(ec2, _key(ec2, "k"), run="alive")
    assert _left(account) == [key]
    assert _left(account, is_alive={"alive"}.__contains__) == []


def test_what_cannot_be_cleaned_up_does_not_keep_the_next_from_it(account: Account) -> None:
    ec2 = account.cloud.client()
    group, key = _tagged(ec2, _group(ec2, "g")), _tagged(ec2, _key(ec2, "k"))
    account.fault("refuse", "DeleteSecurityGroup", code="UnauthorizedOperation", status=403, times=5)
    things = left_over(account.regions, "us-east-1", older_than=HOURS, now=NOW, is_alive=lambda run: False)
    swept = list(sweep(things, account.regions, account.clock))
    assert [(each.thing.id, each.error is None) for each in swept] == [(group, False), (key, True)]


def test_a_run_that_goes_on_says_until_when_it_answers_for_what_it_holds(account: Account) -> None:
    ec2 = account.cloud.client()
    key = _tagged(ec2, _key(ec2, "k"))
    claim = account.journal.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key")
    _bound(account, claim, key)
    account.journal.intend("image", "us-east-1", lifetime=Lifetime.PRODUCT, stage="capture")  # not bound yet
    assert _left(account) == [key]
    Heartbeat(account.journal, account.regions, account.clock).beat(NOW + timedelta(hours=1))
    assert _left(account) == []
    assert _left(account, now=NOW + timedelta(hours=2)) == [key], "it is dead since"


def test_the_heart_beats_by_itself_and_stops_with_the_run(account: Account) -> None:
    ec2 = account.cloud.client()
    key = _tagged(ec2, _key(ec2, "k"))
    _bound(account, account.journal.intend("key-pair", "us-east-1", lifetime=Lifetime.RUN, stage="key"), key)
    with Heartbeat(account.journal, account.regions, account.clock, seconds=0.05) as heart:
        harness.until(lambda: _left(account, now=account.clock.now()) == [])
    assert not heart._thread.is_alive()


def _bound(account: Account, claim: Claim, id: str) -> None:
    account.journal.bind(claim, id)


MANIFEST = "web/0a1b2c3d-c4/web.manifest.xml"
BUNDLE = {MANIFEST: b"<manifest/>", "web/0a1b2c3d-c4/web.part.00": b"x", "web/0a1b2c3d-c4/web.part.01": b"y"}


def _bundles(account: Account, objects: dict[str, bytes], **changes: Any) -> list[str]:
    """Return those of the resources that the sweep finds four hours later."""
    account.s3.make_bucket("bundles")
    for key, content in objects.items():
        account.s3.put("bundles", key, content)
    later = account.clock.now() + timedelta(hours=4)
    which: Any = {"older_than": HOURS, "now": later, "is_alive": lambda run: False, **changes}
    found = bundles_left_over(account.regions, "us-east-1", "bundles", **which)
    assert [swept.error for swept in sweep(found, account.regions, account.clock)] == [None] * len(found)
    assert account.s3.keys("bundles", "") == sorted(
        set(objects) - {k for k in objects if k.startswith("web/") and found}
    )
    return [thing.id for thing in found]


def test_a_bundle_that_no_image_was_registered_from_is_cleaned_up_and_nothing_beside_it(account: Account) -> None:
    others = {"0a1b2c3d-c4": b"", "elsewhere/0a1b2c3d/web.part.00": b"", "other/notes.txt": b"", "photo.png": b""}
    assert _bundles(account, {**BUNDLE, **others}) == ["bundles/web/0a1b2c3d-c4"]


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ({}, {"older_than": timedelta(hours=5)}),
        ({}, {"is_alive": {"0a1b2c3d"}.__contains__}),
        ({"web/0a1b2c3d-c4/notes.txt": b""}, {}),
        ({"web/0a1b2c3d-c4/notes/1.txt": b""}, {}),
        ({"web/0a1b2c3d-c4/a/b/web.part.00": b""}, {}),
    ],
    ids=["young", "of a run that lives", "with something else in it", "with a folder in it", "with folders in it"],
)
def test_a_folder_that_may_be_somebodys_is_left_alone(
    account: Account, more: dict[str, bytes], changes: dict[str, Any]
) -> None:
    assert _bundles(account, {**BUNDLE, **more}, **changes) == []


def test_a_bundle_of_an_image_or_of_a_run_that_says_it_lives_is_left_alone(account: Account) -> None:
    location = bundled.put(account, "web/0a1b2c3d-c4")
    bundled.registered(account, location, "web")
    later = account.clock.now() + timedelta(hours=4)
    which: Any = {"older_than": HOURS, "now": later, "is_alive": lambda run: False}
    bucket = location.partition("/")[0]
    assert bundles_left_over(account.regions, "us-east-1", bucket, **which) == []
    ec2 = account.cloud.client()
    ec2.deregister_image(ImageId=ec2.describe_images(Owners=["self"])["Images"][0]["ImageId"])
    assert [thing.id for thing in bundles_left_over(account.regions, "us-east-1", bucket, **which)]
    _tagged(ec2, _key(ec2, "k"), run="0a1b2c3d", **{tags.EXPIRES: iso(later + timedelta(minutes=5))})
    assert bundles_left_over(account.regions, "us-east-1", bucket, **which) == []


def test_a_bundle_of_a_run_that_says_in_another_region_that_it_lives_is_left_alone(account: Account) -> None:
    bundled.put(account, "web/0a1b2c3d-c4")
    later = account.clock.now() + timedelta(hours=4)
    ec2 = account.cloud.client(region="us-west-2")
    _tagged(ec2, _key(ec2, "k"), run="0a1b2c3d", **{tags.EXPIRES: iso(later + timedelta(minutes=5))})
    which: Any = {"older_than": HOURS, "now": later, "is_alive": lambda run: False}
    for beside, left in (((), 1), (("us-west-2",), 0)):
        found = bundles_left_over(account.regions, "us-east-1", "bundles", instance_regions=beside, **which)
        assert len(found) == left
