"""Whose environment a session heeds: the user's for AWS, nobody's for the local cloud."""

from __future__ import annotations

import pytest

from imagepipe.cloud.session import Access, Session
from imagepipe.errors import CloudError
from tests.account import Account
from tests.local.aws.harness import KEY_ID, SECRET


def _make_hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that there is not, and a proxy where nobody listens."""
    monkeypatch.setenv("AWS_PROFILE", "nope")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_the_local_cloud_is_reached_past_the_users_profile_and_proxy(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.ec2.subnets.default_vpc()  # the cloud is in this process here, and must have come up before
    _make_hostile(monkeypatch)
    access = Access(
        endpoint_url=account.cloud.endpoint, region="us-east-1", access_key_id=KEY_ID, secret_access_key=SECRET
    )
    client = Session(access).client("ec2", "us-east-1", retries=False)
    assert client.describe_regions()["Regions"]


def test_aws_is_reached_with_the_users_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    _make_hostile(monkeypatch)
    with pytest.raises(CloudError, match=r"profile .nope. could not be found"):
        Session(Access(region="us-east-1"))
