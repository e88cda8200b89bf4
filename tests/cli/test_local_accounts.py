"""Other accounts of the local cloud, from the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from imagepipe.cli.local import local
from imagepipe.cli.local_store import terminate_everything
from imagepipe.errors import LocalCloudError
from imagepipe.local.client import connect
from imagepipe.local.client.connect import LocalCloud
from tests.local.aws.harness import (
    ACCOUNT,
    KEY_ID,
    OTHER_ACCOUNT,
    SECRET,
    Cloud,
    available,
    register,
    running,
    snapshot_of,
    state,
    stopped,
    until,
)

UNIT = "arn:aws:organizations::111122223333:ou/o-a1b2c3d4e5/ou-f6g7-h8i9j0k1"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    cloud = Cloud(root=tmp_path)
    cloud.start()

    @contextmanager
    def connected(*_: Any, **__: Any) -> Iterator[LocalCloud]:
        yield LocalCloud(cloud.endpoint, KEY_ID, SECRET, "us-east-1")

    monkeypatch.setattr(connect, "connect", connected)
    yield cloud
    cloud.stop()


def run(cloud: Cloud, *words: str) -> Result:
    return CliRunner().invoke(local, ["--store", str(cloud.root / "store"), *words])


def test_an_account_is_made_listed_and_acted_as(cloud: Cloud) -> None:
    made = run(cloud, "account", "add", "--member", UNIT).output.strip()
    assert run(cloud, "accounts").output.splitlines() == [ACCOUNT, OTHER_ACCOUNT, f"{made}  {UNIT}"]
    rows = json.loads(run(cloud, "accounts", "--format", "json").stdout)
    assert rows[-1] == {"account": made, "memberships": [UNIT]}
    lines = run(cloud, "account", "env", made).output.splitlines()
    exported = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    assert exported["AWS_ENDPOINT_URL"] == cloud.endpoint
    keys = {"AccessKeyId": exported["AWS_ACCESS_KEY_ID"], "SecretAccessKey": exported["AWS_SECRET_ACCESS_KEY"]}
    assert cloud.client("sts", keys=keys).get_caller_identity()["Account"] == made


def test_the_stores_own_account_can_be_acted_as_and_put_into_a_unit(cloud: Cloud) -> None:
    run(cloud, "account", "add", "--id", ACCOUNT, "--member", UNIT)
    assert f"{ACCOUNT}  {UNIT}" in run(cloud, "accounts").output.splitlines()
    assert f"export AWS_ACCESS_KEY_ID={KEY_ID}" in run(cloud, "account", "env", ACCOUNT).output


def test_a_missing_account_is_refused_with_a_hint(cloud: Cloud) -> None:
    result = run(cloud, "account", "env", "999988887777")
    assert isinstance(result.exception, LocalCloudError)
    assert "999988887777" in result.exception.message
    assert "account add" in (result.exception.hint or "")


def test_an_invalid_account_id_is_refused(cloud: Cloud) -> None:
    result = run(cloud, "account", "add", "--id", "42")
    assert isinstance(result.exception, LocalCloudError)
    assert "twelve digits" in result.exception.message


def test_all_accounts_instances_end_where_everything_is_to_end(cloud: Cloud) -> None:
    there = cloud.client(keys=cloud.added_account(), region="eu-west-1")
    theirs, ours = running(there), running(cloud.client())
    terminate_everything(LocalCloud(cloud.endpoint, KEY_ID, SECRET, "us-east-1"))
    until(lambda: state(there, theirs) == state(cloud.client(), ours) == "terminated")


def test_images_that_another_account_shares_are_listed_like_own_ones(cloud: Cloud) -> None:
    there = cloud.client(keys=cloud.added_account())
    shared = register(there, snapshot_of(there, stopped(there)), "theirs")
    there.modify_image_attribute(ImageId=available(there, shared), LaunchPermission={"Add": [{"UserId": ACCOUNT}]})
    lines = run(cloud, "images").output.splitlines()
    [line] = [line for line in lines if shared in line]
    assert line.split()[-1] == "theirs"
    assert sum("in every region" in line for line in lines) == 1


def test_a_key_with_a_policy_is_printed_for_a_shell_and_good_for_that_alone(cloud: Cloud) -> None:
    file = cloud.root / "policy.json"
    statement = '{"Effect": "Allow", "Action": "ec2:DescribeImages", "Resource": "*"}'
    file.write_text(f'{{"Version": "2012-10-17", "Statement": [{statement}]}}')
    lines = run(cloud, "account", "key", "--policy", str(file)).output.splitlines()
    exported = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    keys = {"AccessKeyId": exported["AWS_ACCESS_KEY_ID"], "SecretAccessKey": exported["AWS_SECRET_ACCESS_KEY"]}
    ec2 = cloud.client(keys=keys)
    assert ec2.describe_images()["Images"]
    with pytest.raises(ClientError, match="UnauthorizedOperation"):
        ec2.describe_vpcs()


def test_a_policy_that_is_not_understood_makes_no_key(cloud: Cloud) -> None:
    file = cloud.root / "policy.json"
    file.write_text('{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "NotAction": "*", "Resource": "*"}}')
    with pytest.raises(LocalCloudError, match="NotAction is not supported"):
        CliRunner().invoke(
            local,
            ["--store", str(cloud.root / "store"), "account", "key", "--policy", str(file)],
            catch_exceptions=False,
        )
