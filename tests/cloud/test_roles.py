"""A role that is assumed: whose the calls are, and that its credentials are renewed before they end."""

from __future__ import annotations

import json

import pytest

from imagepipe.cloud.session import Access, Session
from imagepipe.errors import CloudError
from tests.account import Account
from tests.local.aws.harness import KEY_ID, SECRET


def _role(account: Account, *, trusts: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": trusts}, "Action": "sts:AssumeRole"}
    trust = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    made = account.cloud.client("iam").create_role(RoleName="baker", AssumeRolePolicyDocument=trust)
    return str(made["Role"]["Arn"])


def _session(account: Account, role: str, *, seconds: int = 3600) -> Session:
    access = Access(
        endpoint_url=account.cloud.endpoint,
        region="us-east-1",
        access_key_id=KEY_ID,
        secret_access_key=SECRET,
        role=role,
        role_seconds=seconds,
    )
    return Session(access)


def _trusting(account: Account) -> str:
    return _role(account, trusts=account.regions.session.account())


def test_every_call_is_the_roles(account: Account) -> None:
    session = _session(account, _trusting(account))
    session.check_credentials()
    who = session.client("sts", "us-east-1").get_caller_identity()["Arn"]
    assert who.endswith(":assumed-role/baker/imagepipe")
    assert session.client("ec2", "us-west-2").describe_images(Owners=["self"])["Images"] == []


def _key(session: Session) -> str:
    return str(session._session.get_credentials().get_frozen_credentials().access_key)


def test_credentials_that_end_soon_are_renewed_and_those_that_do_not_are_kept(account: Account) -> None:
    role = _trusting(account)
    soon, later = _session(account, role, seconds=900), _session(account, role)
    assert _key(soon) != _key(soon), "botocore renews from a quarter of an hour before the end on"
    assert _key(later) == _key(later)


def test_a_role_that_does_not_trust_us_is_told_as_what_is_missing(account: Account) -> None:
    session = _session(account, _role(account, trusts="210987654321"))
    with pytest.raises(CloudError, match="sts:AssumeRole is missing"):
        session.account()


def test_a_session_of_a_role_that_ended_before_its_time_is_renewed_and_the_call_made(account: Account) -> None:
    """Somebody revoked it, say."""
    client = _session(account, _trusting(account)).client("ec2", "us-east-1", retries=False)
    client.describe_volumes()
    account.fault("expire", "DescribeVolumes")
    assert client.describe_volumes()["Volumes"] == []
    assert client.describe_volumes()["Volumes"] == []
    assert account.cloud.gateway.backend.faults.injected() == {"expire DescribeVolumes": 1}


def test_credentials_that_nobody_can_renew_are_refused_with_what_to_do(account: Account) -> None:
    account.fault("expire", "DescribeSnapshots")
    with pytest.raises(CloudError, match="expired") as caught:
        account.ec2.snapshots.of_token("t1")
    assert caught.value.code == "RequestExpired"
    assert caught.value.hint == "the session's credentials have expired: log in again (`aws sso login`)"


@pytest.mark.parametrize(("seconds", "how"), [(1200, "20 minutes behind"), (-1200, "20 minutes ahead of")])
def test_a_clock_that_is_off_is_named_with_how_far(account: Account, seconds: int, how: str) -> None:
    account.fault("skew", "*", seconds=seconds, times=None)
    with pytest.raises(CloudError) as caught:
        account.ec2.snapshots.of_token("t1")
    assert caught.value.hint == f"this machine's clock is {how} the cloud's: set it (`timedatectl set-ntp true`)"
