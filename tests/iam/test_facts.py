"""The table of what IAM tells apart."""

from __future__ import annotations

from functools import cache

import botocore.session
import pytest

from imagepipe.iam import facts

NO_CALLS = {"iam:PassRole", "kms:ReEncryptFrom", "kms:ReEncryptTo"}
"""Permissions that are part of other calls."""
S3_NAMES = {
    "s3:GetEncryptionConfiguration": "GetBucketEncryption",
    "s3:ListBucket": "ListObjectsV2",
}


@cache
def operations_of(service: str) -> frozenset[str]:
    return frozenset(botocore.session.get_session().get_service_model(service).operation_names)


@pytest.mark.parametrize("action", sorted(facts.ACTIONS.keys() - NO_CALLS))
def test_every_action_is_an_operation_of_its_service(action: str) -> None:
    service, _, name = action.partition(":")
    assert S3_NAMES.get(action, name) in operations_of(service)


@pytest.mark.parametrize(
    ("region", "kind", "arn"),
    [
        ("us-east-1", "image", "arn:aws:ec2:us-east-1::image/*"),
        ("cn-north-1", "snapshot", "arn:aws-cn:ec2:cn-north-1::snapshot/*"),
        ("us-gov-west-1", "instance", "arn:aws-us-gov:ec2:us-gov-west-1:*:instance/*"),
    ],
)
def test_arns_have_the_partition_of_the_region_and_images_no_account(region: str, kind: str, arn: str) -> None:
    assert facts.arn(region, kind) == arn
    assert facts.kind_of(arn) == kind


def test_a_key_of_a_tag_is_of_its_family() -> None:
    assert facts.family("aws:RequestTag/team/of") == "aws:RequestTag"
    assert facts.family("ec2:Add/userId") == "ec2:Add/userId"
