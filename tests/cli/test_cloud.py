"""How commands reach the cloud."""

from __future__ import annotations

import botocore.session
import pytest

from imagepipe.cli.cloud import AWS_DOMAINS, CloudTarget, is_aws, open_cloud
from imagepipe.cloud.rate_limit import READING
from tests.account import Account
from tests.clocks import Stopped
from tests.local.aws.harness import KEY_ID, SECRET


def test_an_endpoint_that_is_not_of_aws_is_held_back_once_it_has_refused_a_call(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    clock = Stopped()
    with open_cloud(CloudTarget(endpoint_url=account.cloud.endpoint), region="us-east-1", clock=clock) as regions:
        for _ in range(READING.burst + 1):
            regions["us-east-1"].subnets.default_vpc()
        assert clock.waits == []
        account.fault("refuse", "DescribeVpcs", code="RequestLimitExceeded", status=503)
        regions["us-east-1"].subnets.default_vpc()
    assert clock.waits == pytest.approx([2 / READING.per_second])


def test_an_endpoint_of_aws_is_known_by_its_domain() -> None:
    assert is_aws(None)
    assert is_aws("https://vpce-1.ec2.eu-west-1.vpce.amazonaws.com")
    assert is_aws("https://ec2.cn-north-1.amazonaws.com.cn/")
    assert not is_aws("http://127.0.0.1:4566")
    assert not is_aws("https://amazonaws.com.example.org")
    assert not is_aws("no url")


def test_the_domains_of_aws_are_those_that_botocore_knows() -> None:
    partitions = botocore.session.Session().get_data("endpoints")["partitions"]
    variants = [variant for each in partitions for variant in each["defaults"].get("variants", [])]
    assert {f".{each['dnsSuffix']}" for each in [*partitions, *variants]} == set(AWS_DOMAINS)
