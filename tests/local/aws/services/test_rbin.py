"""Recycle Bin's retention rules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import ACCOUNT, Cloud, caller, may, refused, retain

WEEK = {"RetentionPeriodValue": 7, "RetentionPeriodUnit": "DAYS"}
TAG = {"ResourceTagKey": "keep", "ResourceTagValue": "yes"}


def test_a_rule_is_kept_described_changed_and_deleted(cloud: Cloud) -> None:
    made = cloud.client("rbin").create_rule(
        ResourceType="EC2_IMAGE", RetentionPeriod=WEEK, Description="images", Tags=[{"Key": "a", "Value": "b"}]
    )
    identifier = made["Identifier"]
    assert (made["Status"], made["LockState"], made["Tags"]) == ("available", "unlocked", [{"Key": "a", "Value": "b"}])
    assert made["RuleArn"] == f"arn:aws:rbin:us-east-1:{ACCOUNT}:rule/{identifier}"
    cloud.restart()
    rbin = cloud.client("rbin")
    found = rbin.get_rule(Identifier=identifier)
    assert (found["ResourceType"], found["RetentionPeriod"], found["Description"]) == ("EC2_IMAGE", WEEK, "images")
    longer = {**WEEK, "RetentionPeriodValue": 30}
    assert rbin.update_rule(Identifier=identifier, RetentionPeriod=longer)["RetentionPeriod"] == longer
    assert rbin.get_rule(Identifier=identifier)["Description"] == "images"
    rbin.update_rule(Identifier=identifier, ResourceTags=[TAG])
    assert rbin.get_rule(Identifier=identifier)["ResourceTags"] == [TAG]
    rbin.delete_rule(Identifier=identifier)
    with refused("ResourceNotFoundException"):
        rbin.get_rule(Identifier=identifier)


def test_rules_are_listed_by_type_and_tags_in_pages(cloud: Cloud) -> None:
    rbin = cloud.client("rbin")
    plain = [retain(cloud, "EBS_SNAPSHOT") for _ in range(3)]
    tagged = retain(cloud, "EBS_SNAPSHOT", ResourceTags=[TAG])
    retain(cloud, "EC2_IMAGE")

    def listed(**params: Any) -> list[str]:
        pages = rbin.get_paginator("list_rules").paginate(
            ResourceType="EBS_SNAPSHOT", PaginationConfig={"PageSize": 2}, **params
        )
        return [rule["Identifier"] for page in pages for rule in page["Rules"]]

    assert listed() == [*plain, tagged]
    assert listed(ResourceTags=[TAG]) == [tagged]
    assert cloud.client("rbin", other=True).list_rules(ResourceType="EBS_SNAPSHOT")["Rules"] == []
    assert cloud.client("rbin", "eu-west-1").list_rules(ResourceType="EBS_SNAPSHOT")["Rules"] == []


@pytest.mark.parametrize(
    "given",
    [
        {"ResourceType": "EBS_VOLUME"},
        {"ResourceType": "S3_BUCKET"},
        {"RetentionPeriod": {"RetentionPeriodValue": 366, "RetentionPeriodUnit": "DAYS"}},
        {"RetentionPeriod": {"RetentionPeriodValue": 7, "RetentionPeriodUnit": "WEEKS"}},
        {"ResourceTags": [TAG], "ExcludeResourceTags": [TAG]},
        {"LockConfiguration": {"UnlockDelay": {"UnlockDelayValue": 7, "UnlockDelayUnit": "DAYS"}}},
        {"Tags": [{"Key": "aws:mine", "Value": "x"}]},
    ],
)
def test_a_rule_that_cannot_be_is_refused(given: dict[str, Any], cloud: Cloud) -> None:
    with refused("ValidationException"):
        cloud.client("rbin").create_rule(**{"ResourceType": "EC2_IMAGE", "RetentionPeriod": WEEK, **given})
    assert cloud.client("rbin").list_rules(ResourceType="EC2_IMAGE")["Rules"] == []


def test_each_action_needs_its_permission_on_the_rule(cloud: Cloud) -> None:
    first, second = retain(cloud, "EC2_IMAGE"), retain(cloud, "EC2_IMAGE")
    arn = f"arn:aws:rbin:us-east-1:{ACCOUNT}:rule/{first}"
    rbin = caller(cloud, may("rbin:DeleteRule", arn), may("rbin:ListRules"), service="rbin")
    with refused("AccessDeniedException", match=f"rbin:DeleteRule on resource: .*{second}"):
        rbin.delete_rule(Identifier=second)
    with refused("AccessDeniedException", match="rbin:GetRule"):
        rbin.get_rule(Identifier=first)
    rbin.delete_rule(Identifier=first)
    assert [rule["Identifier"] for rule in rbin.list_rules(ResourceType="EC2_IMAGE")["Rules"]] == [second]
