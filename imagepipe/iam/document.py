"""Policy documents: statements, how they are merged, and how IAM counts their size."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass

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
    """Merge statements that have the same Sid, operators and condition keys. Sorted by Sid.

    Actions, resources and the values of each condition are united.
    """
    found: dict[tuple[str, tuple[tuple[str, str], ...]], Statement] = {}
    for statement in statements:
        which = (
            statement.sid,
            tuple(sorted((operator, key) for operator, keys in statement.conditions.items() for key in keys)),
        )
        found[which] = _joined(found[which], statement) if which in found else statement
    named: list[Statement] = []
    for statement in sorted(found.values(), key=lambda statement: statement.sid):
        count = sum(other.sid.rstrip("0123456789") == statement.sid for other in named)
        sid = f"{statement.sid}{count + 1}" if count else statement.sid
        named.append(Statement(sid, statement.actions, statement.resources, statement.conditions))
    return named


def _joined(first: Statement, other: Statement) -> Statement:
    conditions = {
        operator: {key: _union(values, other.conditions[operator][key]) for key, values in keys.items()}
        for operator, keys in first.conditions.items()
    }
    return Statement(
        first.sid, _union(first.actions, other.actions), _union(first.resources, other.resources), conditions
    )


def _union(first: Sequence[str], other: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({*first, *other}))


def _one_or_all(values: Sequence[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else sorted(values)


def document(statements: Iterable[Statement]) -> dict[str, Any]:
    """Return the policy document of these statements."""
    return {"Version": VERSION, "Statement": [statement.document() for statement in statements]}


def size(policy: Mapping[str, Any]) -> int:
    """Return the number of characters as IAM counts them, without white space."""
    return len("".join(json.dumps(policy, separators=(",", ":"), ensure_ascii=False).split()))


def parts(statements: Iterable[Statement], *, limit: int = LIMIT) -> list[dict[str, Any]]:
    """Split statements in order into as few policies as possible; attached together, they allow the same."""
    found: list[list[Statement]] = [[]]
    for statement in statements:
        if found[-1] and size(document([*found[-1], statement])) > limit:
            found.append([])
        found[-1].append(statement)
    return [document(each) for each in found]
