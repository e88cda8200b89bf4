"""A bucket that cannot keep shared state is an error at the start, with a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imagepipe.errors import CloudError, UsageError
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.state.bucket import StateBucket
from imagepipe.state.location import StateLocation
from imagepipe.state.probe import probe
from tests.local.aws.harness import Cloud
from tests.state.shared import Machine, SetClock, session


def test_a_good_bucket_passes_as_often_as_it_is_asked(here: Machine) -> None:
    probe(here.bucket)
    probe(here.bucket)
    assert here.bucket.keys("") == ["probe.json"]


@pytest.mark.parametrize(
    ("region", "place"),
    [("us-east-1", ""), ("eu-west-1", " --create-bucket-configuration LocationConstraint=eu-west-1")],
)
def test_a_bucket_that_does_not_exist_is_named_with_the_command_that_creates_it(
    cloud: Cloud, region: str, place: str
) -> None:
    with pytest.raises(CloudError, match="the state bucket no-state does not exist") as refused:
        StateBucket(session(cloud, region), StateLocation.parse("s3://no-state/x"), SetClock())
    assert str(refused.value.hint).endswith(f"create-bucket --bucket no-state --region {region}{place}")


def test_a_bucket_that_is_read_only_is_called_so(cloud: Cloud, here: Machine) -> None:
    cloud.gateway.backend.faults.add(Fault(effect="refuse", action="s3:PutObject", code="AccessDenied", status=403))
    with pytest.raises(CloudError, match=r"s3://our-state/team is read-only .*s3:PutObject is missing") as refused:
        probe(here.bucket)
    assert refused.value.hint == "these permissions are needed: imagepipe policy --state s3://our-state/team SPEC"


@pytest.mark.parametrize("header", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_a_condition_is_refused(here: Machine, header: str) -> None:
    here.change_requests("PutObject", _without(header))
    with pytest.raises(CloudError, match=f"its server ignores {header} on writes") as refused:
        probe(here.bucket)
    assert "conditional writes" in str(refused.value.hint)


def _without(header: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        del request.headers[header]

    return change


@pytest.mark.parametrize(
    "url", ["s3:/b/p", "our-state", "s3://", "s3://A_B/p", "s3://bucket//p", "s3://bucket/a b", "https://b.s3/x"]
)
def test_a_place_that_is_not_in_s3_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is not a place in S3"):
        StateLocation.parse(url)


@pytest.mark.parametrize(
    ("url", "shown", "prefix"),
    [
        ("s3://bucket", "s3://bucket", ""),
        ("s3://bucket/", "s3://bucket", ""),
        ("s3://my.bucket/a/b_c/", "s3://my.bucket/a/b_c", "a/b_c/"),
    ],
)
def test_a_place_has_a_bucket_and_a_prefix(url: str, shown: str, prefix: str) -> None:
    location = StateLocation.parse(url)
    assert (str(location), location.prefix) == (shown, prefix)
