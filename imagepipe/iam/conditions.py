"""Evaluate the condition operators that imagepipe uses (IAM user guide, "IAM JSON policy elements: Condition
operators", and "Multivalued context keys"). Others are refused, because a condition that is not understood must not
allow anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from imagepipe.dataclass import dataclass
from imagepipe.iam.arns import arn_fits, text_fits
from imagepipe.iam.facts import KEYS, family

Context = Mapping[str, tuple[str, ...]]
"""The properties of a request by condition key, without keys that it does not have."""
Fits = Callable[[str, str], bool]
"""A function that compares a value of a policy with a value of a request, in this order."""

POSITIVE: Mapping[str, Fits] = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    "StringLike": text_fits,
    "ArnEquals": arn_fits,
    "ArnLike": arn_fits,
    "Bool": lambda wanted, value: wanted.lower() == value.lower(),
}
NEGATIVE: Mapping[str, Fits] = {
    "StringNotEquals": POSITIVE["StringEquals"],
    "StringNotEqualsIgnoreCase": POSITIVE["StringEqualsIgnoreCase"],
    "StringNotLike": text_fits,
    "ArnNotEquals": arn_fits,
    "ArnNotLike": arn_fits,
}
_OPERATOR = re.compile(r"(?:(ForAllValues|ForAnyValue):)?([A-Za-z]+?)(IfExists)?")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
VARIABLES = frozenset({"aws:PrincipalAccount", "aws:RequestedRegion"})


class NotUnderstood(ValueError):
    """A policy contains something that is not supported here."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An operator, a key and the accepted values. All conditions of a statement must hold."""

    operator: str
    key: str
    values: tuple[str, ...]

    def __post_init__(self) -> None:
        quantifier, name, if_exists = _parsed(self.operator)
        if name == "Null" and (quantifier or if_exists):
            raise NotUnderstood(f"condition operator {self.operator!r}: Null takes no set operator or IfExists")
        if name not in ("Null", *POSITIVE, *NEGATIVE):
            raise NotUnderstood(f"condition operator {self.operator!r} is not supported")
        if family(self.key) not in KEYS:
            raise NotUnderstood(f"condition key {self.key!r} is not supported")
        if name in ("Null", "Bool") and not {value.lower() for value in self.values} <= {"true", "false"}:
            raise NotUnderstood(f"condition operator {self.operator!r} takes true or false")
        if name == "Null" and len(self.values) > 1:
            raise NotUnderstood("condition operator 'Null' takes one value")
        for value in self.values:
            if unknown := set(_VARIABLE.findall(value)) - VARIABLES:
                raise NotUnderstood(f"policy variable {min(unknown)!r} is not supported")

    def is_met(self, context: Context) -> bool:
        """Return whether a request meets it. Raises NotUnderstood for several values without a set operator."""
        quantifier, name, if_exists = _parsed(self.operator)
        present = context.get(self.key)
        if name == "Null":
            return (present is None) == (self.values[0].lower() == "true")
        if present is None:
            # A negated operator and ForAllValues are true if the key is missing.
            return if_exists or quantifier == "ForAllValues" or (name in NEGATIVE and quantifier is None)
        fits = POSITIVE.get(name) or NEGATIVE[name]
        wanted = [_VARIABLE.sub(lambda found: _value(context, found[1]), value) for value in self.values]
        held = [_held(value, wanted, fits) != (name in NEGATIVE) for value in present]
        if quantifier == "ForAnyValue":
            return any(held)
        if quantifier is None and len(held) > 1:
            raise NotUnderstood(f"{self.operator} on {self.key!r} needs a set operator for {len(held)} values")
        return all(held)


def _held(value: str, wanted: Sequence[str], fits: Fits) -> bool:
    return any(fits(each, value) for each in wanted)


def _value(context: Context, key: str) -> str:
    return context.get(key, ("",))[0]


def _parsed(operator: str) -> tuple[str | None, str, bool]:
    found = _OPERATOR.fullmatch(operator)
    if found is None:
        raise NotUnderstood(f"condition operator {operator!r} is not supported")
    return found[1], found[2], found[3] is not None
