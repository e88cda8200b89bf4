from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_policy_names_every_call_in_the_code_and_no_other() -> None:
    page = (ROOT / "docs/reference/iam-permissions.md").read_text(encoding="utf-8")
    policy = json.loads(page.partition("```json\n")[2].partition("```")[0])
    actions = {"sts:GetCallerIdentity"}
    for path in (ROOT / "imagepipe/cloud").glob("*.py"):
        code = path.read_text(encoding="utf-8")
        service = "ssm" if path.stem == "parameters" else "ec2"
        calls = set(re.findall(r"self\._(?:client|once)\.(\w+)\(", code)) - {"get_paginator"}
        calls |= set(re.findall(r'get_paginator\("(\w+)"\)', code))
        actions |= {f"{service}:{''.join(word.capitalize() for word in call.split('_'))}" for call in calls}
    assert set(policy["Statement"][0]["Action"]) == actions
