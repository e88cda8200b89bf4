from __future__ import annotations

import json
import re
from pathlib import Path

from imagepipe.cloud.translate import iam_action

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_policy_names_every_call_in_the_code_and_no_other() -> None:
    page = (ROOT / "docs/reference/iam-permissions.md").read_text(encoding="utf-8")
    policy = json.loads(page.partition("```json\n")[2].partition("```")[0])
    # The ACL that an object is put with, and the source of a copy, have no calls of their own.
    actions = {"sts:GetCallerIdentity", "s3:PutObjectAcl", "s3:GetObject"}
    for path in (ROOT / "imagepipe/cloud").glob("*.py"):
        code = path.read_text(encoding="utf-8")
        service = {"parameters": "ssm", "s3": "s3"}.get(path.stem, "ec2")
        calls = set(re.findall(r"self\._(?:client|creates\.client)\.(\w+)\(", code)) - {"get_paginator"}
        calls |= set(re.findall(r'get_paginator\("(\w+)"\)', code))
        actions |= {iam_action(service, "".join(map(str.capitalize, call.split("_")))) for call in calls}
    documented = [action for statement in policy["Statement"] for action in statement["Action"]]
    assert sorted(documented) == sorted(actions)
