"""Evaluate identity-based policies: Allow and Deny, Action, Resource and Condition.

The rules are those of the IAM user guide, "Policy evaluation logic": a Deny wins, and an Allow is needed. Unsupported
elements (NotAction, other operators, other condition keys) are refused when the document is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.iam.arns import arn_fits, text_fits
from imagepipe.iam.conditions import Condition, Context, NotUnderstood

STATEMENT = frozenset({"Sid", "Effect", "Action", "Resource", "Condition"})
_ACTION = re.compile(r"\*|[a-z0-9-]+:[A-Za-z0-9*?]+", re.IGNORECASE)
_RESOURCE = re.compile(r"\*|arn(:[^:$]*){4}:[^$]+")
"""Form of a resource: six parts and no policy variable."""


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One authorization: one action on one resource. A request needs one for each resource that it touches."""

    action: str
    resource: str
    """ARN of the resource; `*` for an action without resources."""
    context: Context


@dataclass(frozen=True, slots=True)
class Rule:
    """A statement of a document."""

    sid: str
    allows: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()

    def applies(self, asked: AuthorizationRequest) -> bool:
        """Return whether the rule applies. For an action without resources, only a rule for all resources does."""
        return (
            any(text_fits(action.lower(), asked.action.lower()) for action in self.actions)
            and any(arn_fits(resource, asked.resource) for resource in self.resources)
            and all(condition.is_met(asked.context) for condition in self.conditions)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of an evaluation."""

    is_allowed: bool
    by: tuple[str, ...] = ()
    """Sids of the rules that allow or deny it."""
    is_denied: bool = False
    """True if there is an explicit Deny, not just no Allow."""


def decide(rules: Sequence[Rule], asked: AuthorizationRequest) -> Decision:
    """Decide whether a request is allowed. Raises NotUnderstood if a condition cannot be evaluated."""
    applying = [rule for rule in rules if rule.applies(asked)]
    if denying := [rule.sid for rule in applying if not rule.allows]:
        return Decision(False, tuple(denying), is_denied=True)
    allowing = tuple(rule.sid for rule in applying)
    return Decision(bool(allowing), allowing)


def rules_of(policy: str | Mapping[str, Any]) -> tuple[Rule, ...]:
    """Return the rules of a document. Raises NotUnderstood if it is not a policy or contains unsupported elements."""
    try:
        found = json.loads(policy, object_pairs_hook=_keys_once) if isinstance(policy, str) else policy
    except NotUnderstood:
        raise
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"the policy is not JSON: {error}") from error
    if not isinstance(found, dict) or not found.keys() <= {"Version", "Id", "Statement"}:
        raise NotUnderstood("a policy can have only Version, Id and Statement")
    if found.get("Version") != "2012-10-17":
        raise NotUnderstood("a policy's Version must be 2012-10-17: the older language has no variables")
    statements = found.get("Statement", [])
    listed = statements if isinstance(statements, list) else [statements]
    return tuple(_rule(number, each) for number, each in enumerate(listed, start=1))


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Read a JSON object without duplicate keys: `json` would silently drop the first, such as a condition."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotUnderstood("the policy has a duplicate key in one object")
    return found


def _rule(number: int, statement: Any) -> Rule:
    if not isinstance(statement, dict):
        raise NotUnderstood(f"statement {number} is not an object")
    sid = str(statement.get("Sid", number))
    if unknown := sorted(statement.keys() - STATEMENT):
        raise NotUnderstood(f"statement {sid}: {', '.join(unknown)} is not supported")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise NotUnderstood(f"statement {sid}: its Effect is neither Allow nor Deny")
    return Rule(
        sid,
        statement["Effect"] == "Allow",
        _patterns(sid, "Action", statement.get("Action"), _ACTION),
        _patterns(sid, "Resource", statement.get("Resource"), _RESOURCE),
        tuple(_conditions(sid, statement.get("Condition", {}))),
    )


def _conditions(sid: str, conditions: Any) -> Iterable[Condition]:
    if not isinstance(conditions, dict) or not all(isinstance(keys, dict) for keys in conditions.values()):
        raise NotUnderstood(f"statement {sid}: its Condition is not an object of operators")
    for operator, keys in conditions.items():
        for key, values in keys.items():
            try:
                yield Condition(operator, key, _texts(sid, key, values))
            except NotUnderstood as error:
                raise NotUnderstood(f"statement {sid}: {error}") from None


def _patterns(sid: str, name: str, value: Any, known: re.Pattern[str]) -> tuple[str, ...]:
    """Check patterns: one that can never match is refused, because a Deny with it would deny nothing."""
    found = _texts(sid, name, value)
    for each in found:
        if known.fullmatch(each) is None:
            raise NotUnderstood(f"statement {sid}: {name} {each!r} is not supported")
    return found


def _texts(sid: str, name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, str) for each in values):
        raise NotUnderstood(f"statement {sid}: {name} is neither a string nor a list of strings")
    return tuple(values)
