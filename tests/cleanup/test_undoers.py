"""The reverse recipe: each kind is found by id or by token alone, and gone already is success."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from imagepipe.cloud import tags
from imagepipe.cloud.tags import RunTags
from imagepipe.engine.journal import Claim, Lifetime
from imagepipe.values import ImageText
from tests import bundled
from tests.account import Account
from tests.local.aws import harness


def _claim(account: Account, kind: str, **details: str) -> Claim:
    if kind == "bundle":
        details = {"bucket": bundled.BUCKET, "prefix": PREFIX}
    return account.journal.intend(kind, "us-east-1", lifetime=Lifetime.RUN, stage="s", details=details)


def _tagged(kind: str, claim: Claim, state: str = tags.UNFINISHED) -> list[dict[str, Any]]:
    labels = {**RunTags("r1", "web").product(claim.token, ImageText("n", "", {})), tags.STATE: state}
    return [tags.specification(kind, labels)]


def _instance(account: Account, claim: Claim) -> str:
    return harness.running(account.cloud.client(), TagSpecifications=_tagged("instance", claim))


def _key(account: Account, claim: Claim) -> str:
    ec2 = account.cloud.client()
    return str(ec2.create_key_pair(KeyName="k", TagSpecifications=_tagged("key-pair", claim))["KeyPairId"])


def _group(account: Account, claim: Claim) -> str:
    ec2 = account.cloud.client()
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    made = ec2.create_security_group(
        GroupName="g", Description="d", VpcId=vpc, TagSpecifications=_tagged("security-group", claim)
    )
    return str(made["GroupId"])


def _snapshots(account: Account, claim: Claim) -> str:
    ec2 = account.cloud.client()
    volume = harness.root_volume(ec2, harness.stopped(ec2))
    made = ec2.create_snapshot(VolumeId=volume, TagSpecifications=_tagged("snapshot", claim))
    return str(made["SnapshotId"])


def _image(account: Account, claim: Claim) -> str:
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    return harness.register(ec2, snapshot, f"n-{claim.key}", TagSpecifications=_tagged("image", claim))


def _bundle(account: Account, claim: Claim) -> str:
    return bundled.put(account, f"{PREFIX}/{claim.token}")


PREFIX = "web"
MAKE: dict[str, Callable[[Account, Claim], str]] = {
    "instance": _instance,
    "key-pair": _key,
    "security-group": _group,
    "snapshots": _snapshots,
    "image": _image,
    "bundle": _bundle,
}


def _is_there(account: Account, kind: str, claim: Claim) -> bool:
    ec2 = account.ec2
    if kind == "bundle":
        return ec2.s3.has_bucket(bundled.BUCKET) and bool(ec2.s3.keys(bundled.BUCKET, f"{PREFIX}/{claim.token}/"))
    found = {
        "instance": ec2.instances.of_token,
        "key-pair": ec2.keys.of_token,
        "security-group": ec2.groups.of_token,
        "snapshots": ec2.snapshots.of_token,
        "image": ec2.images.own_of_token,
    }[kind](claim.token)
    return bool(found)


def test_every_kind_that_a_stage_claims_can_be_cleaned_up(account: Account) -> None:
    assert set(account.holdings.undoers()) == set(MAKE)


@pytest.mark.parametrize("bound", [True, False], ids=["by id", "by token alone"])
@pytest.mark.parametrize("kind", MAKE)
def test_it_is_found_and_cleaned_up(account: Account, kind: str, bound: bool) -> None:
    claim = _claim(account, kind)
    id = MAKE[kind](account, claim)
    if bound:
        claim = account.journal.bind(claim, id)
    assert _is_there(account, kind, claim)
    account.holdings.undoers()[kind](claim)
    assert not _is_there(account, kind, claim)


@pytest.mark.parametrize("kind", ["instance", "key-pair", "security-group", "snapshots", "image"])
def test_what_ec2_gave_us_and_does_not_show_yet_is_not_taken_for_gone(account: Account, kind: str) -> None:
    claim = _claim(account, kind)
    claim = account.journal.bind(claim, MAKE[kind](account, claim))
    account.cloud.gateway.backend.faults.hidden.hide({"InstanceId": claim.id}, seconds=1.0, calls=None)
    assert not _is_there(account, kind, claim)
    account.holdings.undoers()[kind](claim)
    harness.until(lambda: not _is_there(account, kind, claim))
    time.sleep(1.1)
    assert not _is_there(account, kind, claim), "it is gone, and not merely hidden"


@pytest.mark.parametrize("bound", [True, False], ids=["by id", "by token alone"])
@pytest.mark.parametrize("kind", MAKE)
def test_gone_already_is_success(account: Account, kind: str, bound: bool) -> None:
    claim = _claim(account, kind)
    if bound:
        id = MAKE[kind](account, claim)
        claim = account.journal.bind(claim, id)
        account.holdings.undoers()[kind](claim)
    account.holdings.undoers()[kind](claim)


@pytest.mark.parametrize("bound", [True, False], ids=["by id", "by token alone"])
@pytest.mark.parametrize("kind", ["image", "snapshots"])
def test_what_is_kept_stays_whatever_the_journal_says(account: Account, kind: str, bound: bool) -> None:
    claim = _claim(account, kind)
    id = MAKE[kind](account, claim)
    account.ec2.images.tag([id], {tags.STATE: tags.KEPT})
    if bound:
        claim = account.journal.bind(claim, id)
    account.holdings.undoers()[kind](claim)
    assert _is_there(account, kind, claim)


@pytest.mark.parametrize("bound", [True, False], ids=["by id", "by token alone"])
def test_a_bundle_stays_while_a_kept_image_is_registered_from_it(account: Account, bound: bool) -> None:
    claim = _claim(account, "bundle")
    location = _bundle(account, claim)
    claim = account.journal.bind(claim, location) if bound else claim
    image = bundled.registered(account, location, state=tags.KEPT)
    account.holdings.bundle(claim)
    assert len(bundled.keys(account)) == len(bundled.FILES)
    account.ec2.images.tag([image.id], {tags.STATE: tags.UNFINISHED})
    account.holdings.bundle(claim)
    assert bundled.keys(account) == []


def test_parts_of_a_bundle_go_though_it_has_no_manifest_yet_and_nobody_elses(account: Account) -> None:
    claim, other = _claim(account, "bundle"), _claim(account, "bundle")
    assert (claim.token, other.token) == ("r1-c1", "r1-c2")
    account.s3.make_bucket(bundled.BUCKET)
    for key in (f"web/{claim.token}/image.part.00", f"web/{claim.token}0/image.part.00", f"web/{other.token}/probe"):
        account.s3.put(bundled.BUCKET, key, b"x")
    account.holdings.bundle(claim)
    assert bundled.keys(account) == ["web/r1-c10/image.part.00", "web/r1-c2/probe"]


def test_all_that_carry_the_token_go_though_one_was_bound(account: Account) -> None:
    claim = _claim(account, "instance")
    first, second = _instance(account, claim), _instance(account, claim)
    claim = account.journal.bind(claim, first)
    account.holdings.instance(claim)
    assert account.ec2.instances.of_token(claim.token) == []
    assert harness.state(account.cloud.client(), second) == "terminated"


def test_the_private_key_goes_with_its_pair(account: Account, tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    path.write_text("private")
    claim = _claim(account, "key-pair", private_key=str(path))
    account.holdings.key_pair(claim)
    assert not path.exists()


def test_a_group_in_use_is_deleted_once_it_is_free(account: Account) -> None:
    ec2 = account.cloud.client()
    claim = _claim(account, "security-group")
    group = _group(account, claim)
    instance = harness.running(ec2, SecurityGroupIds=[group])
    import threading

    threading.Timer(0.5, lambda: ec2.terminate_instances(InstanceIds=[instance])).start()
    account.holdings.security_group(claim)
    assert account.ec2.groups.of_token(claim.token) == []


def test_an_instance_that_ec2_does_not_show_yet_is_not_taken_for_gone(account: Account) -> None:
    claim = _claim(account, "instance")
    claim = account.journal.bind(claim, _instance(account, claim))
    real = account.ec2.instances.describe_many
    answers: list[object] = []

    def late(ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        answers.append(ids)
        return {} if len(answers) < 3 else real(ids)

    account.ec2.instances.describe_many = late  # type: ignore[method-assign]
    account.holdings.instance(claim)
    assert len(answers) >= 3, "it looked again"
    assert not _is_there(account, "instance", claim)
