from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_policy_names_every_call_in_the_code_and_no_other() -> None:
    page = (ROOT / "docs/reference/iam-permissions.md").read_text(encoding="utf-8")
    policy = json.loads(page.partition("```json\n")[2].partition("```")[0])
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "imagepipe/cloud").glob("*.py"))
    calls = set(re.findall(r"self\._(?:client|once)\.(\w+)\(", code)) - {"get_paginator"}
    calls |= set(re.findall(r'get_paginator\("(\w+)"\)', code))
    actions = {f"ec2:{''.join(word.capitalize() for word in call.split('_'))}" for call in calls}
    assert "get_caller_identity" in code
    assert set(policy["Statement"][0]["Action"]) == actions | {"sts:GetCallerIdentity"}
