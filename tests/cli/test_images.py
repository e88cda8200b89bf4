"""`imagepipe images deregister`: what goes, what stays because somebody needs it, and what is said."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from imagepipe.cli.images import images
from imagepipe.errors import CloudError
from tests.account import Account
from tests.local.gateway import harness
from tests.local.gateway.harness import KEY_ID, SECRET


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
def test_an_image_goes_with_its_snapshots_and_what_that_freed_is_said(account: Account, by: str) -> None:
    image, snapshot = _made(account, "web")
    result = _deregister(account, image if by == "id" else "web", "--delete-data")
    assert result.return_value == 0, result.output
    assert result.output.splitlines() == [
        f"{image} 'web' in us-east-1: deregistered",
        f"  deleted {snapshot}: 1 GiB of volumes",
    ]
    assert _left(account) == ([], [])


def test_without_a_word_about_data_it_stays_and_is_named(account: Account) -> None:
    image, snapshot = _made(account, "web")
    result = _deregister(account, image)
    assert f"left {snapshot}: not asked to delete it (--delete-data)" in result.output
    assert _left(account) == ([], [snapshot])


def test_what_another_image_is_made_of_too_is_never_deleted(account: Account) -> None:
    image, snapshot = _made(account, "web")
    ec2 = account.cloud.client()
    other = harness.available(ec2, harness.register(ec2, snapshot, "other"))
    result = _deregister(account, image, "--delete-data")
    assert result.return_value == 0
    assert f"left {snapshot}: {other} is made of it too" in result.output
    assert _left(account) == ([other], [snapshot])


@pytest.mark.parametrize("by", ["id", "name"])
def test_in_every_region_the_copies_of_its_name_go_too(account: Account, by: str) -> None:
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
    assert result.output == f"would deregister {image} 'web' in us-east-1\n"
    assert _left(account) == ([image], [snapshot])


@pytest.mark.parametrize("word", ["ami-00000000000000001", "nobody"])
def test_an_image_that_there_is_not_is_told_before_anything_is_done(account: Account, word: str) -> None:
    image, _ = _made(account, "web")
    result = _deregister(account, image, word)
    assert isinstance(result.exception, CloudError)
    assert f"this account has no image {word} in us-east-1" in str(result.exception)
    assert _left(account)[0] == [image]


def test_another_accounts_image_is_not_ours_to_deregister(account: Account) -> None:
    debian = harness.base_image(account.cloud.client())
    result = _deregister(account, debian, "--delete-data")
    assert isinstance(result.exception, CloudError)
    assert "another account's" in str(result.exception)


def test_a_snapshot_that_cannot_be_deleted_is_named_with_the_reason(account: Account) -> None:
    image, snapshot = _made(account, "web")
    account.fault("refuse", "DeleteSnapshot", code="UnauthorizedOperation", status=403, times=9)
    result = _deregister(account, image, "--delete-data")
    assert f"left {snapshot}: deleting {snapshot} in us-east-1" in result.output
    assert _left(account) == ([], [snapshot])
