"""How commands reach the cloud."""

from __future__ import annotations

import pytest

from imagepipe.cli.cloud import CloudTarget, open_cloud
from imagepipe.cloud.rate_limit import READING
from tests.account import Account
from tests.clocks import Stopped
from tests.local.aws.harness import KEY_ID, SECRET


def test_a_cloud_that_is_not_this_machines_is_asked_no_faster_than_ec2_allows(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    clock = Stopped()
    with open_cloud(CloudTarget(endpoint_url=account.cloud.endpoint), region="us-east-1", clock=clock) as regions:
        for _ in range(READING.burst):
            regions["us-east-1"].subnets.default_vpc()
        assert clock.waits == []
        regions["us-east-1"].subnets.default_vpc()
    assert clock.waits == pytest.approx([1 / READING.per_second])
