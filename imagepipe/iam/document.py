"""Policy documents: statements, how they are put together, and how IAM counts their size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = "2012-10-17"
LIMIT = 6144
"""Characters of a managed policy, white space left out (IAM user guide, "IAM and AWS STS quotas")."""

Conditions = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Values by operator and key."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Something that is allowed; its Sid says why."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Conditions = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As IAM has it, lists sorted."""
        conditions = {
            operator: {key: _one_or_all(values) for key, values in sorted(keys.items())}
            for operator, keys in sorted(self.conditions.items())
        }
        return {
            "Sid": self.sid,
            "Effect": "Allow",
            "Action": _one_or_all(self.actions),
            "Resource": _one_or_all(self.resources),
            **({"Condition": conditions} if conditions else {}),
        }


def merged(statements: Iterable[Statement]) -> list[Statement]:
    """One statement of each Sid and kind of conditions, by Sid: what each allows, and all products of these."""
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Statement] = {}
    for one in statements:
        which = (one.sid, tuple(sorted((operator, key) for operator, keys in one.conditions.items() for key in keys)))
        found[which] = _joined(found[which], one) if which in found else one
    named: list[Statement] = []
    for one in sorted(found.values(), key=lambda one: one.sid):
        count = sum(other.sid.rstrip("0123456789") == one.sid for other in named)
        sid = f"{one.sid}{count + 1}" if count else one.sid
        named.append(Statement(sid, one.actions, one.resources, one.conditions))
    return named


def _joined(one: Statement, other: Statement) -> Statement:
    conditions = {
        operator: {key: _union(values, other.conditions[operator][key]) for key, values in keys.items()}
        for operator, keys in one.conditions.items()
    }
    return Statement(one.sid, _union(one.actions, other.actions), _union(one.resources, other.resources), conditions)


def _union(one: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))


def _one_or_all(values: Sequence[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else sorted(values)


def document(statements: Iterable[Statement]) -> dict[str, Any]:
    """The policy of these statements."""
    return {"Version": VERSION, "Statement": [one.document() for one in statements]}


def size(policy: Mapping[str, Any]) -> int:
    """Characters as IAM counts them: white space left out."""
    return len("".join(json.dumps(policy, separators=(",", ":"), ensure_ascii=False).split()))


def parts(statements: Iterable[Statement], *, limit: int = LIMIT) -> list[dict[str, Any]]:
    """As few policies as the statements fit into in their order; attached together they allow the same."""
    found: list[list[Statement]] = [[]]
    for one in statements:
        if found[-1] and size(document([*found[-1], one])) > limit:
            found.append([])
        found[-1].append(one)
    return [document(each) for each in found]
