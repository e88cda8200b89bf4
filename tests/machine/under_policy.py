"""Builds under the policy that `imagepipe policy` prints for them, and what was asked of IAM meanwhile."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

from imagepipe.iam.evaluate import AuthorizationRequest, decide, rules_of
from imagepipe.local.client import admin
from tests.machine.bakery import Baked, Bakery, kill, until

Policy = dict[str, Any]
_numbers = itertools.count(1)


@dataclass
class Baker:
    """Who bakes a spec as a role that has its policy, and no other."""

    bakery: Bakery
    spec: Path
    words: Sequence[str] = ()
    """Of every build: `--var`s."""
    policy: Policy = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.policy = self.policy or self.printed()

    def printed(self, *words: str) -> Policy:
        """What the command prints."""
        said = self.bakery("policy", str(self.spec), *words)
        assert said.code == 0, said.err
        found: Policy = json.loads(said.out)
        return found

    def role(self, policy: Policy | None = None) -> str:
        """The ARN of a new role that has this policy alone, or the spec's."""
        iam, name = self.bakery.client("iam"), f"baker-{next(_numbers)}"
        account = self.bakery.client("sts").get_caller_identity()["Account"]
        ours = {"Effect": "Allow", "Principal": {"AWS": account}, "Action": "sts:AssumeRole"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [ours]})
        arn = str(iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"])
        iam.put_role_policy(RoleName=name, PolicyName="spec", PolicyDocument=json.dumps(policy or self.policy))
        return arn

    def _build(self, words: Sequence[str], policy: Policy | None) -> list[str]:
        role = ["--assume-role", self.role(policy)]
        return ["build", str(self.spec), "--local", "--format", "json", *self.words, *words, *role]

    def build(self, *words: str, policy: Policy | None = None) -> Baked:
        """A build, however it ends."""
        return self.bakery(*self._build(words, policy))

    def killed(self, *, kind: str, region: str) -> str:
        """The id of a run that was killed as soon as it was told the id of a thing of this kind in this region."""
        known = self._runs()
        process = self.bakery.start(*self._build((), None))

        def run() -> str | None:
            for path in self._runs() - known:
                rows = [json.loads(line) for line in (path / "journal.jsonl").read_text().split("\n")[:-1]]
                keys = {row["claim"] for row in rows if _is_claim(row, kind, region)}
                if any(row["type"] == "bound" and row["claim"] in keys for row in rows):
                    return path.name
            assert process.poll() is None, process.communicate()[1]
            return None

        found: str = until(run, f"{kind} in {region}")
        kill(process)
        return found

    def _runs(self) -> set[Path]:
        return {path.parent for path in self.bakery.runs.glob("*/journal.jsonl")}

    def client(self, service: str = "ec2", region: str = "us-east-1") -> Any:
        """boto3 with a key that has the policy."""
        key = admin.add_key(self.bakery.cloud, json.dumps(self.policy))
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.bakery.cloud.endpoint_url,
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret_access_key,
        )

    def asked(self) -> list[AuthorizationRequest]:
        """What was asked under policies, and allowed."""
        rows = self.bakery.admin("GET", "evaluations")
        return [_asked(row) for row in rows if row["allowed"]]

    def refused(self) -> list[AuthorizationRequest]:
        """What was asked, and was not."""
        return [_asked(row) for row in self.bakery.admin("GET", "evaluations") if not row["allowed"]]


def _is_claim(row: Mapping[str, Any], kind: str, region: str) -> bool:
    return row.get("type") == "intended" and row.get("kind") == kind and row.get("region") == region


def _asked(row: Mapping[str, Any]) -> AuthorizationRequest:
    return AuthorizationRequest(
        row["action"], row["resource"], {key: tuple(value) for key, value in row["context"].items()}
    )


def without(policy: Policy, sid: str, name: str, value: str) -> Policy:
    """The policy without one action, or one resource, of a statement; without that, if it has no other."""
    made = deepcopy(policy)
    for statement in made["Statement"]:
        if statement["Sid"] == sid:
            statement[name] = [each for each in _listed(statement[name]) if each != value]
    made["Statement"] = [each for each in made["Statement"] if each["Action"] and each["Resource"]]
    return made


def parts(policy: Policy) -> Iterator[tuple[str, str, str]]:
    """Sid, `Action` or `Resource`, and value, of all that a policy allows."""
    for statement in policy["Statement"]:
        for name in ("Action", "Resource"):
            yield from ((statement["Sid"], name, value) for value in _listed(statement[name]))


def needless(policy: Policy, asked: Sequence[AuthorizationRequest]) -> list[str]:
    """Each action and resource of a statement without which all that was asked would be allowed just as well."""
    found = []
    for sid, name, value in parts(policy):
        rules = rules_of(without(policy, sid, name, value))
        if all(decide(rules, each).is_allowed for each in asked):
            found.append(f"{sid} {value}")
    return found


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
