"""`imagepipe images deregister`: images and data that are deleted, data that is kept, and the output."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.images import images
from imagepipe.errors import CloudError
from tests import bundled
from tests.account import Account
from tests.local.aws import harness
from tests.local.aws.harness import KEY_ID, SECRET

ONLY_HERE = "only us-east-1 was looked at: copies in other regions stay, without --every-region"


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def _made(account: Account, name: str) -> tuple[str, str]:
    """An image of one snapshot."""
    ec2 = account.cloud.client()
    snapshot = harness.snapshot_of(ec2, harness.stopped(ec2))
    return harness.available(ec2, harness.register(ec2, snapshot, name)), snapshot


def _copied(account: Account, image: str, name: str, region: str) -> str:
    ec2 = account.cloud.client(region=region)
    made = ec2.copy_image(SourceImageId=image, SourceRegion="us-east-1", Name=name)["ImageId"]
    return harness.available(ec2, made)


def _deregister(account: Account, *words: str) -> Result:
    call = ["deregister", *words, "--endpoint-url", account.cloud.endpoint]
    return CliRunner().invoke(images, call, standalone_mode=False)


def _left(account: Account, region: str = "us-east-1") -> tuple[list[str], list[str]]:
    ec2 = account.cloud.client(region=region)
    return (
        [image["ImageId"] for image in ec2.describe_images(Owners=["self"])["Images"]],
        [snapshot["SnapshotId"] for snapshot in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]],
    )


@pytest.mark.parametrize("by", ["id", "name"])
def test_an_image_is_deleted_with_its_snapshots_and_the_freed_size_is_printed(account: Account, by: str) -> None:
    image, snapshot = _made(account, "web")
    result = _deregister(account, image if by == "id" else "web", "--delete-data")
    assert result.return_value == 0, result.output
    assert result.output.splitlines() == [
        f"{image} 'web' in us-east-1: deregistered",
        f"  deleted {snapshot}: 1 GiB of volumes",
        ONLY_HERE,
    ]
    assert _left(account) == ([], [])


def test_without_delete_data_the_data_is_kept_and_named(account: Account) -> None:
    image, snapshot = _made(account, "web")
    result = _deregister(account, image)
    assert f"left {snapshot}: pass --delete-data to delete it" in result.output
    assert _left(account) == ([], [snapshot])


def test_a_snapshot_of_another_image_is_never_deleted(account: Account) -> None:
    image, snapshot = _made(account, "web")
    ec2 = account.cloud.client()
    other = harness.available(ec2, harness.register(ec2, snapshot, "other"))
    result = _deregister(account, image, "--delete-data")
    assert result.return_value == 0
    assert f"left {snapshot}: also used by {other}" in result.output
    assert _left(account) == ([other], [snapshot])


@pytest.mark.parametrize("by", ["id", "name"])
def test_with_every_region_the_copies_of_its_name_are_deleted_too(account: Account, by: str) -> None:
    image, _ = _made(account, "web")
    _copied(account, image, "web", "us-west-2")
    stays = _copied(account, image, "another", "eu-west-1")
    result = _deregister(account, image if by == "id" else "web", "--every-region", "--delete-data")
    assert result.return_value == 0, result.output
    assert [line for line in result.output.splitlines() if "deregistered" in line] == [
        f"{image} 'web' in us-east-1: deregistered",
        next(line for line in result.output.splitlines() if "us-west-2: deregistered" in line),
    ]
    assert _left(account) == _left(account, "us-west-2") == ([], [])
    assert _left(account, "eu-west-1")[0] == [stays]


def test_a_dry_run_changes_nothing(account: Account) -> None:
    image, snapshot = _made(account, "web")
    result = _deregister(account, "web", "--delete-data", "--dry-run")
    assert result.output.splitlines() == [f"would deregister {image} 'web' in us-east-1", ONLY_HERE]
    assert _left(account) == ([image], [snapshot])


@pytest.mark.parametrize("word", ["ami-00000000000000001", "nobody"])
def test_a_missing_image_is_reported_before_anything_is_done(account: Account, word: str) -> None:
    image, _ = _made(account, "web")
    result = _deregister(account, image, word)
    assert isinstance(result.exception, CloudError)
    assert f"this account has no image {word} in us-east-1" in str(result.exception)
    assert _left(account)[0] == [image]


def test_another_accounts_image_is_not_ours_to_deregister(account: Account) -> None:
    debian = harness.base_image(account.cloud.client())
    result = _deregister(account, debian, "--delete-data")
    assert isinstance(result.exception, CloudError)
    assert "belongs to another account" in str(result.exception)


def test_a_snapshot_that_cannot_be_deleted_is_named_with_the_reason(account: Account) -> None:
    image, snapshot = _made(account, "web")
    account.fault("refuse", "DeleteSnapshot", code="UnauthorizedOperation", status=403, times=9)
    result = _deregister(account, image, "--delete-data")
    assert f"left {snapshot}: deleting {snapshot} in us-east-1" in result.output
    assert _left(account) == ([], [snapshot])


def test_a_bundle_is_deleted_with_its_image_and_the_freed_size_is_printed(account: Account) -> None:
    location = bundled.put(account, "web/t1")
    account.s3.put(bundled.BUCKET, "web/t1/notes", b"not named by the manifest")
    image = bundled.registered(account, location)
    size = sum(_size(account, f"web/t1/{name}") for name in bundled.FILES)
    result = _deregister(account, image.id, "--delete-data")
    assert result.return_value == 0, result.output
    assert result.output.splitlines() == [
        f"{image.id} 'web' in us-east-1: deregistered",
        f"  deleted {location}: 4 objects, {size / (1 << 20):.1f} MiB",
        ONLY_HERE,
    ]
    assert bundled.keys(account) == ["web/t1/notes"]
    assert _left(account) == ([], [])


def _size(account: Account, key: str) -> int:
    stored = account.s3.stored(bundled.BUCKET, key)
    assert stored is not None
    return stored.size


def test_a_bundle_stays_where_nobody_asked_to_delete_it(account: Account) -> None:
    location = bundled.put(account)
    image = bundled.registered(account, location)
    result = _deregister(account, image.id)
    assert f"left {location}: pass --delete-data to delete it" in result.output
    assert len(bundled.keys(account)) == len(bundled.FILES)
    assert _left(account) == ([], [])


def test_a_bundle_of_another_image_is_kept_until_that_one_is_deregistered(account: Account) -> None:
    location = bundled.put(account)
    first, second = bundled.registered(account, location), bundled.registered(account, location, "again")
    result = _deregister(account, first.id, "--delete-data")
    assert f"left {location}: also used by {second.id}" in result.output
    assert len(bundled.keys(account)) == len(bundled.FILES)
    assert "deleted" in _deregister(account, second.id, "--delete-data").output
    assert bundled.keys(account) == []


def test_parts_that_another_manifest_names_too_are_kept_until_its_image_is_deregistered(account: Account) -> None:
    """As ec2-migrate-manifest makes one: the same parts, with another kernel, or for another region."""
    location = bundled.put(account)
    beside, deeper = "web/t1/other.manifest.xml", "web/t1/deeper/image.manifest.xml"
    for key in (beside, deeper):
        account.s3.copy(bundled.BUCKET, "web/t1/image.manifest.xml", bundled.BUCKET, key)
    first = bundled.registered(account, location)
    second = bundled.registered(account, f"{bundled.BUCKET}/{beside}", "beside")
    bundled.registered(account, f"{bundled.BUCKET}/{deeper}", "deeper")  # its parts would be beside it
    result = _deregister(account, first.id, "--delete-data")
    assert f"left {location}: also used by {second.id}" in result.output
    assert len(bundled.keys(account)) == len(bundled.FILES) + 2
    assert "deleted" in _deregister(account, second.id, "--delete-data").output
    assert bundled.keys(account) == [deeper, "web/t1/image.manifest.xml"]


@pytest.mark.parametrize(("content", "is_left"), [(None, False), (b"<html/>", True)], ids=["gone", "other"])
def test_a_manifest_beside_that_cannot_be_read_may_name_the_same_parts_and_one_that_is_gone_does_not(
    account: Account, content: bytes | None, is_left: bool
) -> None:
    location = bundled.put(account)
    beside = "web/t1/other.manifest.xml"
    account.s3.copy(bundled.BUCKET, "web/t1/image.manifest.xml", bundled.BUCKET, beside)
    bundled.registered(account, f"{bundled.BUCKET}/{beside}", "beside")
    if content is None:
        account.s3.delete(bundled.BUCKET, [beside])
    else:
        account.s3.put(bundled.BUCKET, beside, content)
    result = _deregister(account, bundled.registered(account, location).id, "--delete-data")
    assert result.return_value == 0, result.output
    assert (f"left {location}: " in result.output) == is_left


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "NoSuchKey"), (b"<html/>", "this is not a bundle's manifest")],
    ids=["gone", "other"],
)
def test_an_image_with_an_unreadable_manifest_is_deregistered_and_its_parts_are_reported(
    account: Account, content: bytes | None, why: str
) -> None:
    location = bundled.put(account)
    image = bundled.registered(account, location)
    key = location.partition("/")[2]
    account.s3.delete(bundled.BUCKET, [key])
    if content is not None:
        account.s3.put(bundled.BUCKET, key, content)
    result = _deregister(account, image.id, "--delete-data")
    assert result.return_value == 0
    assert f"left {location}: its manifest cannot be read, so its parts are unknown: " in result.output
    assert why in result.output
    assert _left(account) == ([], [])
    assert len([each for each in bundled.keys(account) if ".part." in each]) == 3


def test_parts_that_cannot_be_deleted_leave_the_manifest_that_names_them(account: Account) -> None:
    location = bundled.put(account)
    image = bundled.registered(account, location)
    account.fault("refuse", "s3:DeleteObjects", code="AccessDenied", status=403)
    result = _deregister(account, image.id, "--delete-data")
    assert (
        f"left {location}: deleting 3 objects of bundles in us-east-1: not authorised: s3:DeleteObject" in result.output
    )
    assert len(bundled.keys(account)) == len(bundled.FILES)


def test_bundles_of_every_region_go_with_their_images(account: Account) -> None:
    for region, bucket in (("us-east-1", bundled.BUCKET), ("us-west-2", "bundles-west")):
        bundled.registered(account, bundled.put(account, region=region, bucket=bucket), region=region)
    result = _deregister(account, "web", "--every-region", "--delete-data")
    assert result.return_value == 0, result.output
    assert result.output.count("4 objects") == 2
    assert bundled.keys(account) == []
    assert bundled.keys(account, region="us-west-2", bucket="bundles-west") == []


def test_the_result_in_json_lists_the_deleted_data(account: Account) -> None:
    image, snapshot = _made(account, "web")
    result = _deregister(account, image, "--delete-data", "--format", "json")
    row = {"image_id": image, "name": "web", "region": "us-east-1", "deregistered": True}
    assert json.loads(result.stdout) == {
        "dry_run": False,
        "images": [{**row, "deleted": [snapshot], "left": {}}],
    }
    assert f"{image} 'web' in us-east-1: deregistered" in result.stderr
