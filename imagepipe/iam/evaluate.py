"""What a policy document allows: identity-based policies, Allow and Deny, Action, Resource and Condition.

The rules are the IAM user guide's, "Policy evaluation logic": a Deny wins, an Allow is needed. What is not known here
(NotAction, other operators, other condition keys) is refused when the document is read, and never passes silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imagepipe.iam.arns import arn_fits, text_fits
from imagepipe.iam.conditions import Condition, Context, NotUnderstood

STATEMENT = frozenset({"Sid", "Effect", "Action", "Resource", "Condition"})
_ACTION = re.compile(r"\*|[a-z0-9-]+:[A-Za-z0-9*?]+", re.IGNORECASE)
_RESOURCE = re.compile(r"\*|arn(:[^:$]*){4}:[^$]+")
"""All six parts, and no policy variable."""


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One question of a request: may this be done with that? A request asks as many as it has things to touch."""

    action: str
    resource: str
    """An ARN; `*` for an action that is about no resource."""
    context: Context


@dataclass(frozen=True, slots=True)
class Rule:
    """A statement as it was read."""

    sid: str
    allows: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()

    def applies(self, asked: AuthorizationRequest) -> bool:
        """Whether it speaks of this. Of an action without resources, only a rule about all of them does."""
        return (
            any(text_fits(action.lower(), asked.action.lower()) for action in self.actions)
            and any(arn_fits(resource, asked.resource) for resource in self.resources)
            and all(condition.holds(asked.context) for condition in self.conditions)
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it may be done, and by which rules."""

    is_allowed: bool
    by: tuple[str, ...] = ()
    """Sids of the rules that allow it, or of those that deny it."""
    is_denied: bool = False
    """A Deny speaks of it, and not merely no Allow."""


def decide(rules: Sequence[Rule], asked: AuthorizationRequest) -> Decision:
    """May it be done? Raises NotUnderstood where a condition cannot tell."""
    applying = [rule for rule in rules if rule.applies(asked)]
    if denying := [rule.sid for rule in applying if not rule.allows]:
        return Decision(False, tuple(denying), is_denied=True)
    allowing = tuple(rule.sid for rule in applying)
    return Decision(bool(allowing), allowing)


def rules_of(policy: str | Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules of a document. Raises NotUnderstood for what is no policy, or has what is not known here."""
    try:
        found = json.loads(policy, object_pairs_hook=_keys_once) if isinstance(policy, str) else policy
    except NotUnderstood:
        raise
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"the policy is not JSON: {error}") from error
    if not isinstance(found, dict) or not found.keys() <= {"Version", "Id", "Statement"}:
        raise NotUnderstood("a policy has Version and Statement, and nothing else")
    if found.get("Version") != "2012-10-17":
        raise NotUnderstood("a policy's Version is 2012-10-17 here: the older language has no variables")
    statements = found.get("Statement", [])
    listed = statements if isinstance(statements, list) else [statements]
    return tuple(_rule(number, each) for number, each in enumerate(listed, start=1))


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Of two that have one key `json` would drop the first: a condition, say."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotUnderstood("the policy has a key twice in one object")
    return found


def _rule(number: int, statement: Any) -> Rule:
    if not isinstance(statement, dict):
        raise NotUnderstood(f"statement {number} is no object")
    sid = str(statement.get("Sid", number))
    if unknown := sorted(statement.keys() - STATEMENT):
        raise NotUnderstood(f"statement {sid}: {', '.join(unknown)} is not known here")
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
        raise NotUnderstood(f"statement {sid}: its Condition is no object of operators")
    for operator, keys in conditions.items():
        for key, values in keys.items():
            try:
                yield Condition(operator, key, _texts(sid, key, values))
            except NotUnderstood as error:
                raise NotUnderstood(f"statement {sid}: {error}") from None


def _patterns(sid: str, name: str, value: Any, known: re.Pattern[str]) -> tuple[str, ...]:
    """What would never fit is refused: a Deny of it would deny nothing."""
    found = _texts(sid, name, value)
    for each in found:
        if known.fullmatch(each) is None:
            raise NotUnderstood(f"statement {sid}: {name} {each!r} is not understood here")
    return found


def _texts(sid: str, name: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, str) for each in values):
        raise NotUnderstood(f"statement {sid}: {name} is neither a text nor a list of texts")
    return tuple(values)
