"""Policy documents: statements, how they are merged, and how IAM counts their size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = "2012-10-17"
LIMIT = 6144
"""Largest managed policy in characters without white space (IAM user guide, "IAM and AWS STS quotas")."""

Conditions = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Condition values by operator and key."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that allows actions; its Sid says why."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Conditions = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return the statement in IAM's form, with sorted lists."""
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
    """Merge statements with the same Sid and conditions: the actions and resources are united. Sorted by Sid."""
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
    """Return the policy document of these statements."""
    return {"Version": VERSION, "Statement": [one.document() for one in statements]}


def size(policy: Mapping[str, Any]) -> int:
    """Return the number of characters as IAM counts them, without white space."""
    return len("".join(json.dumps(policy, separators=(",", ":"), ensure_ascii=False).split()))


def parts(statements: Iterable[Statement], *, limit: int = LIMIT) -> list[dict[str, Any]]:
    """Split statements in order into as few policies as possible; attached together, they allow the same."""
    found: list[list[Statement]] = [[]]
    for one in statements:
        if found[-1] and size(document([*found[-1], one])) > limit:
            found.append([])
        found[-1].append(one)
    return [document(each) for each in found]
