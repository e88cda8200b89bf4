"""The calls in the code, the policies of specs and the page of the documentation name the same actions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from imagepipe.cloud.errors import iam_action
from imagepipe.iam.facts import FREE
from imagepipe.policy.generate import For, statements
from imagepipe.policy.shared_state import shared_state
from tests.policy.specs import SPECS, context_of

ROOT = Path(__file__).resolve().parents[2]
LOCAL_ONLY = {"s3:CreateBucket"}
OTHER_SERVICES = {
    "describe_auto_scaling_groups": "autoscaling",
    "describe_launch_configurations": "autoscaling",
    "list_rules": "rbin",
}
"""Services of calls in modules that mostly call EC2."""
FOR_PEOPLE = {
    "ec2:EnableImage",
    "ec2:GetImageAncestry",
    "ec2:ListImagesInRecycleBin",
    "ec2:ListSnapshotsInRecycleBin",
    "ec2:RestoreImageFromRecycleBin",
    "ec2:RestoreSnapshotFromRecycleBin",
}
"""Calls of `images show` and `images restore`, which no spec's policy includes."""
WITHOUT_CALLS = {
    "ec2:DescribeLaunchTemplates",
    "imagebuilder:GetContainerRecipe",
    "imagebuilder:ListContainerRecipes",
    "imagebuilder:ListImageRecipes",
    "rbin:GetRule",
    "ssm:DescribeParameters",
    "ssm:GetParameters",
    "iam:PassRole",
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
    "s3:GetObject",
    "s3:PutObjectAcl",
    "ssm:AddTagsToResource",
}
"""What AWS does in the caller's name, and calls of a client by another name; the source of a copy in S3, and the ACL
that an object is put with."""


STATE = list(shared_state("runs", "", "alias/runs", region="us-east-1"))
"""The statements for shared state, which `policy --state` adds."""


@pytest.fixture
def allowed(tmp_path: Path) -> set[str]:
    """Every action of the policies of specs of all kinds."""
    needs = [context_of(tmp_path, text) for text in SPECS.values()]
    return {action for wanted in get_args(For) for one in statements(needs, wanted) for action in one.actions}


def _called() -> set[str]:
    """Return the IAM actions of the calls that the code makes."""
    actions = set()
    for path in (ROOT / "imagepipe/cloud").glob("*.py"):
        code = path.read_text(encoding="utf-8")
        service = {"parameters": "ssm", "s3": "s3", "session": "sts"}.get(path.stem, "ec2")
        calls = set(re.findall(r"\b(?:client|self\._client)\.([a-z0-9_]+)\(", code)) - {"get_paginator"}
        calls |= set(re.findall(r'get_paginator\("(\w+)"\)', code))
        actions |= {
            iam_action(OTHER_SERVICES.get(call, service), "".join(map(str.capitalize, call.split("_"))))
            for call in calls
        }
    return actions


def test_policies_allow_every_call_in_the_code_and_no_other(allowed: set[str]) -> None:
    assert allowed - WITHOUT_CALLS == _called() - FREE - LOCAL_ONLY - FOR_PEOPLE - WITHOUT_CALLS


def test_the_page_has_every_statement_and_action_of_policies_and_no_other(allowed: set[str], tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/iam-permissions.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    rows = [row for row in rows if row[0] != "statement"]
    sids = {sid for row in rows for sid in row[0].split(", ")}
    actions = {action for row in rows for action in re.findall(r"`([a-z0-9]+:[A-Za-z]+)`", row[1])}
    assert actions == allowed | {action for one in STATE for action in one.actions}
    needs = [context_of(tmp_path, text) for text in SPECS.values()]
    made = {one.sid.rstrip("0123456789") for wanted in get_args(For) for one in statements(needs, wanted)}
    assert sids == made | {one.sid for one in STATE}
