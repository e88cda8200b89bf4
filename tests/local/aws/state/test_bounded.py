"""Nothing in the cloud's process grows with each request."""

from __future__ import annotations

from typing import Any

import pytest
from moto.core.model_instances import model_data

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.local.aws.ec2 import idempotency
from imagepipe.local.aws.faults import eventual_consistency, faults
from imagepipe.local.aws.faults.eventual_consistency import HiddenResources
from imagepipe.local.aws.faults.faults import Fault, Faults
from imagepipe.local.aws.moto import s3_state
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.state import call_log
from imagepipe.local.aws.state.bounded import OTHERS, Counts, Newest
from imagepipe.local.aws.state.call_log import Calls, Evaluations
from tests.local.aws.harness import Cloud, launch, running, until


def test_the_newest_entries_stay() -> None:
    kept: Newest[int, list[int]] = Newest(3)
    for number in range(10):
        kept.setdefault(number, []).append(number)
    assert kept == {7: [7], 8: [8], 9: [9]}


def test_names_after_so_many_are_counted_together() -> None:
    counts = Counts(2)
    for name in ("a", "b", "c", "d", "a"):
        counts.add(name)
    assert counts == {"a": 2, "b": 1, OTHERS: 2}


def test_calls_that_a_client_makes_up_are_counted_within_bounds(monkeypatch: pytest.MonkeyPatch, cloud: Cloud) -> None:
    monkeypatch.setattr(call_log, "MAX_ACTIONS", 3)
    counted = Calls()
    for number in range(50):
        counted.add("sqs", f"Action{number}")
    assert counted.counted() == {"sqs:Action0": 1, "sqs:Action1": 1, "sqs:Action2": 1, OTHERS: 47}


def test_decisions_of_policies_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "MAX_REQUESTS", 3)
    evaluations = Evaluations()
    for number in range(50):
        evaluations.add(AuthorizationRequest("ec2:RunInstances", f"arn:{number}", {}), is_allowed=True)
    assert [each["resource"] for each in evaluations.listed()] == ["arn:47", "arn:48", "arn:49"]


def test_patterns_of_filters_are_kept_within_bounds(ec2: Any) -> None:
    for start in range(0, 2000, 200):
        values = [f"value-{start + number}-*" for number in range(200)]
        ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": values}])
    most = filters._pattern.cache_info().maxsize
    assert most is not None
    assert filters._pattern.cache_info().currsize <= most <= 1024


def test_a_spent_fault_is_gone(cloud: Cloud) -> None:
    for number in range(20):
        cloud.gateway.backend.faults.add(Fault("refuse", "DescribeImages", code="AccessDenied", times=1 + number % 2))
    ec2 = cloud.client(retries=40)
    for _ in range(40):
        try:
            ec2.describe_images(Owners=["self"])
        except Exception:  # noqa: BLE001 - refused, as it is to be
            continue
    assert cloud.gateway.backend.faults._active == []
    assert cloud.admin("GET", "injected") == {"refuse DescribeImages": 30}


def test_things_with_faults_before_them_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MAX_BOUND", 3)
    monkeypatch.setattr(eventual_consistency, "MAX_HIDDEN", 3)
    kept = Faults([Fault("die", "*"), Fault("expire", "*")])
    for number in range(50):
        kept.bind(f"i-{number}", "RunInstances", {}, "die")
        assert kept.expire(f"AKIA{number}", "RunInstances", {})
    assert (len(kept._bound), len(kept._expired)) == (3, 3)
    assert kept.bound("i-49", "die") is not None
    hidden = HiddenResources()
    for number in range(50):
        hidden.hide({"InstanceId": f"i-{number}"}, seconds=60, calls=None)
    assert len(hidden._hidden) == 3


def test_hidden_things_that_nobody_asks_for_are_forgotten_once_they_are_shown() -> None:
    hidden = HiddenResources()
    for number in range(50):
        hidden.hide({"InstanceId": f"i-{number}"}, seconds=0, calls=None)
    assert len(hidden._hidden) == 1


def test_client_tokens_are_forgotten_after_a_day_and_the_oldest_of_too_many(
    cloud: Cloud, ec2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = launch(ec2, ClientToken="first")
    kept = cloud.gateway.backend.database.tokens
    cloud.admin("POST", "clock", {"advance": 23 * 3600})
    assert launch(ec2, ClientToken="first") == first
    cloud.admin("POST", "clock", {"advance": 2 * 3600})
    launch(ec2, ClientToken="second")
    assert [token.id.rpartition("/")[2] for token in kept] == ["second"]
    monkeypatch.setattr(idempotency, "MAX_TOKENS", 3)
    for number in range(6):
        launch(ec2, ClientToken=f"token-{number}")
    assert [token.id.rpartition("/")[2] for token in kept] == ["token-3", "token-4", "token-5"]


def test_an_instance_that_ended_is_forgotten_though_nobody_describes_it(cloud: Cloud, ec2: Any) -> None:
    there = cloud.client(region="eu-west-1")
    made = running(there)
    there.terminate_instances(InstanceIds=[made])
    until(lambda: cloud.gateway.backend.database.instances[made].state == "terminated")
    cloud.admin("POST", "clock", {"advance": 2 * 3600})
    launch(ec2)
    until(lambda: cloud.gateway.backend.database.instances.get(made) is None)


def test_moto_keeps_no_tag_or_page_of_deleted_objects(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_state, "MAX_PAGE_TOKENS", 2)
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="bundles")
    backend = cloud.gateway.backend.moto.model("s3", "000000000000", "aws")
    for number in range(10):
        s3.put_object(Bucket="bundles", Key=f"part.{number}", Body=b"x", Tagging="team=web")
    list(s3.get_paginator("list_objects_v2").paginate(Bucket="bundles", MaxKeys=1))
    assert len(backend._pagination_tokens) == 2
    for number in range(9):
        s3.delete_object(Bucket="bundles", Key=f"part.{number}")
    assert [arn for arn in backend.tagger.tags if "part" in arn] == ["arn:aws:s3:::bundles/part.9/null"]
    assert sum(len(model.instances_tracked) for of in model_data.values() for model in of.values()) == 0
    assert s3.get_object_tagging(Bucket="bundles", Key="part.9")["TagSet"] == [{"Key": "team", "Value": "web"}]
