"""Roles that are assumed: whose they are, for whom, and for how long."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.local.aws.harness import ACCOUNT, KEY_ID, OTHER_ACCOUNT, SECRET, Cloud, refused, running


def role(cloud: Cloud, *, other: bool = False, trusts: str = ACCOUNT, external_id: str = "", **params: Any) -> str:
    """ARN of a role that an account may assume."""
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{trusts}:root"},
        "Action": "sts:AssumeRole",
    }
    if external_id:
        statement["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam = cloud.client("iam", other=other)
    made = iam.create_role(RoleName="baker", AssumeRolePolicyDocument=policy, **params)
    return str(made["Role"]["Arn"])


def assumed(cloud: Cloud, arn: str, **params: Any) -> dict[str, Any]:
    answer = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="build", **params)
    return {key: str(value) for key, value in answer["Credentials"].items()}


@pytest.mark.parametrize("other", [False, True], ids=["of the own account", "of another account"])
def test_a_role_acts_in_its_own_account(cloud: Cloud, other: bool) -> None:
    account = OTHER_ACCOUNT if other else ACCOUNT
    keys = assumed(cloud, role(cloud, other=other))
    who = cloud.client("sts", keys=keys).get_caller_identity()
    assert (who["Account"], who["Arn"]) == (account, f"arn:aws:sts::{account}:assumed-role/baker/build")
    made = running(cloud.client(keys=keys))
    owners = cloud.client(other=other).describe_instances(InstanceIds=[made])["Reservations"]
    assert owners[0]["OwnerId"] == account
    assert len(cloud.client(other=not other).describe_instances()["Reservations"]) == 0


def test_its_keys_end_when_their_time_has_come_and_new_ones_are_good(cloud: Cloud) -> None:
    arn = role(cloud)
    keys = assumed(cloud, arn, DurationSeconds=900)
    cloud.restart()
    cloud.client(keys=keys).describe_images(Owners=["self"])
    cloud.admin("POST", "clock", {"advance": 901})
    with refused("RequestExpired"):
        cloud.client(keys=keys).describe_images(Owners=["self"])
    with refused("ExpiredToken"):
        cloud.client("sts", keys=keys).get_caller_identity()
    with refused("ExpiredTokenException"):
        cloud.client("ssm", keys=keys).get_parameter(Name="/x")
    cloud.client(keys=assumed(cloud, arn)).describe_images(Owners=["self"])


@pytest.mark.parametrize("token", [None, "another"])
def test_its_keys_are_worth_nothing_without_their_token(cloud: Cloud, token: str | None) -> None:
    keys = {**assumed(cloud, role(cloud)), "SessionToken": token}
    with refused("AuthFailure"):
        cloud.client(keys=keys).describe_images(Owners=["self"])
    with refused("InvalidClientTokenId"):
        cloud.client("sts", keys=keys).get_caller_identity()


def test_a_role_is_assumed_by_those_whom_it_trusts_alone(cloud: Cloud) -> None:
    with refused("AccessDenied"):
        assumed(cloud, f"arn:aws:iam::{ACCOUNT}:role/nobody")
    strangers = role(cloud, trusts="999988887777")
    with refused("AccessDenied"):
        assumed(cloud, strangers)
    with_id = role(cloud, other=True, external_id="42")
    for given in ({}, {"ExternalId": "43"}):
        with refused("AccessDenied"):
            assumed(cloud, with_id, **given)
    assumed(cloud, with_id, ExternalId="42")


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"DurationSeconds": 899}, id="too short"),
        pytest.param({"DurationSeconds": 7200}, id="longer than the role allows"),
        pytest.param({"RoleSessionName": "a space"}, id="session name"),
        pytest.param({"RoleArn": "arn:aws:iam::1:role/too-short-an-account"}, id="role"),
    ],
)
def test_a_session_that_cannot_be_is_refused(cloud: Cloud, params: dict[str, Any]) -> None:
    wanted = {"RoleArn": role(cloud), "RoleSessionName": "build", **params}
    with refused("ValidationError"):
        cloud.client("sts", parameter_validation=False).assume_role(**wanted)


def test_a_longer_session_is_for_roles_that_allow_it(cloud: Cloud) -> None:
    arn = role(cloud, MaxSessionDuration=7200)
    keys = assumed(cloud, arn, DurationSeconds=7200)
    with refused("ValidationError"):
        cloud.client("sts", keys=keys).assume_role(RoleArn=arn, RoleSessionName="chained", DurationSeconds=7200)


def test_expired_sessions_are_deleted_from_the_store(cloud: Cloud) -> None:
    assumed(cloud, role(cloud))
    cloud.admin("POST", "clock", {"advance": 3 * 3600})
    assumed(cloud, f"arn:aws:iam::{ACCOUNT}:role/baker")
    assert len(cloud.gateway.backend.database.sessions) == 1
    assert cloud.client("sts", keys={"AccessKeyId": KEY_ID, "SecretAccessKey": SECRET}).get_caller_identity()
