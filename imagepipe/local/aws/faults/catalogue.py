"""The kinds of faults and their fields: one table, by which files and the admin interface are checked."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, NamedTuple

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.local.aws.protocol.errors import AwsError

MADE = (
    "RegisterImage",
    "CreateImage",
    "CopyImage",
    "CreateSnapshot",
    "CreateSnapshots",
    "CopySnapshot",
    "CreateImageUsageReport",
)
CREATED = (*MADE, "RunInstances", "CreateVolume", "CreateSecurityGroup", "CreateKeyPair", "ImportKeyPair")
SERVICES = ("ec2", "s3", "sts", "ssm", "kms", "autoscaling", "imagebuilder", "rbin")


@dataclass(frozen=True, slots=True)
class Kind:
    """An effect, and the fields that a fault with this effect may have."""

    what: str
    """Description, for people."""
    actions: tuple[str, ...] = ()
    """Actions that it can be injected into; empty for any action."""
    fields: frozenset[str] = frozenset()
    """Fields, in addition to those that all effects have."""
    needs: frozenset[str] = frozenset()
    """Fields of which at least one is required."""


def _kind(what: str, fields: str = "", *, actions: tuple[str, ...] = (), needs: str = "") -> Kind:
    return Kind(what, actions, frozenset(fields.split()) | frozenset(needs.split()), frozenset(needs.split()))


COMMON = frozenset({"effect", "action", "where", "after", "times", "probability"})
KINDS: Mapping[str, Kind] = {
    "refuse": _kind("the call is refused with `code`, before its effect", "code message status"),
    "delay": _kind("the call is held back for `seconds` before its effect", needs="seconds"),
    "delay-after": _kind("the answer is held back for `seconds` after the effect", needs="seconds"),
    "cut-before": _kind("the connection is cut, and nothing was done"),
    "cut-after": _kind("the connection is cut after the effect: the answer is lost"),
    "fail": _kind(
        "what the call makes goes to `failed` or `error`; an instance is terminated before it runs",
        "code message",
        actions=(*MADE, "RunInstances"),
    ),
    "hang": _kind("what the call makes stays pending for ever", actions=MADE),
    "hide": _kind(
        "what the call makes is not shown, and NotFound where it is named, for `seconds` or for so many `calls`",
        actions=CREATED,
        needs="seconds calls",
    ),
    "impair": _kind("the instance fails its status checks", actions=("RunInstances",)),
    "die": _kind(
        "the instance ends by itself, `seconds` after it ran", "seconds code message", actions=("RunInstances",)
    ),
    "drop-ssh": _kind(
        "connections to the instance's SSH are reset, `seconds` after it ran; the machine goes on",
        "seconds",
        actions=("RunInstances",),
    ),
    "late-ssh": _kind(
        "the instance's ports take connections, and do not answer for the first `seconds`",
        actions=("RunInstances",),
        needs="seconds",
    ),
    "skew": _kind(
        "the cloud's clock is `seconds` ahead of the caller's, or behind it where they are negative", needs="seconds"
    ),
    "expire": _kind("the credentials that make the call have expired, from this call on"),
}


class Mistake(NamedTuple):
    """A mistake in the description of a fault, and its place."""

    path: tuple[str, ...]
    is_key: bool
    message: str


def check(values: Mapping[str, Any]) -> list[Mistake]:
    """List all mistakes in a fault, as files and the admin interface describe it."""
    effect = values.get("effect")
    if effect is None:
        return [Mistake((), False, f"a fault has an effect: {', '.join(KINDS)}")]
    kind = KINDS.get(effect) if isinstance(effect, str) else None
    if kind is None:
        return [Mistake(("effect",), False, f"unknown effect {effect!r}{_suggestion(str(effect), KINDS)}")]
    return [*_check_fields(values, effect, kind), *_check_action(values, effect, kind)]


def _check_fields(values: Mapping[str, Any], effect: str, kind: Kind) -> Iterator[Mistake]:
    allowed = (COMMON - {"action", "where"} if effect == "skew" else COMMON) | kind.fields
    for name, value in values.items():
        if name not in TYPES:
            yield Mistake((name,), True, f"unknown field {name!r}{_suggestion(name, allowed)}")
        elif name not in allowed:
            yield Mistake((name,), True, f"{effect!r} has no {name!r}; it has {', '.join(sorted(allowed))}")
        elif not TYPES[name][0](value):
            yield Mistake((name,), False, f"{name} is {TYPES[name][1]}, and not {value!r}")
    if kind.needs and not kind.needs & values.keys():
        yield Mistake((), False, f"{effect!r} needs {' or '.join(sorted(kind.needs, reverse=True))}")
    seconds = values.get("seconds")
    if effect != "skew" and isinstance(seconds, int | float) and seconds < 0:
        yield Mistake(("seconds",), False, f"seconds cannot be negative in {effect!r}")


def _check_action(values: Mapping[str, Any], effect: str, kind: Kind) -> Iterator[Mistake]:
    pattern = values.get("action", "*")
    if not isinstance(pattern, str):
        return  # reported already
    if kind.actions and not any(fnmatchcase(action, pattern) for action in kind.actions):
        known = f": {effect!r} comes at {', '.join(kind.actions)}"
        yield Mistake(
            ("action",), False, f"{pattern!r} is not an action for this{known}{_suggestion(pattern, kind.actions)}"
        )
    elif not any(fnmatchcase(action, pattern) for action in actions()):
        yield Mistake(("action",), False, f"no service here has an action {pattern!r}{_suggestion(pattern, actions())}")


def _suggestion(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


@cache
def actions() -> tuple[str, ...]:
    """List the actions of all services, S3's as `s3:PutObject`, by botocore's models."""
    import botocore.session

    session = botocore.session.Session()
    return tuple(
        f"s3:{name}" if service == "s3" else str(name)
        for service in SERVICES
        for name in session.get_service_model(service).operation_names
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_patterns(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(each, str) for each in (*value, *value.values()))


TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "effect": (_is_text, "a text"),
    "action": (_is_text, "a text"),
    "where": (_is_patterns, "a mapping of parameters to patterns, both texts"),
    "code": (_is_text, "a text"),
    "message": (_is_text, "a text"),
    "status": (lambda value: _is_count(value, 400) and value < 600, "an HTTP status from 400 to 599"),
    "seconds": (_is_number, "a number of seconds"),
    "calls": (_is_count, "a whole number, 1 or more"),
    "after": (lambda value: _is_count(value, 0), "a whole number, 0 or more"),
    "times": (_is_count, "a whole number, 1 or more"),
    "probability": (lambda value: _is_number(value) and 0 <= value <= 1, "a number from 0 to 1"),
}
"""Test of a value, and description of valid values, by field."""


def fault_of(values: Any) -> Fault:
    """Make a fault from JSON. Raises AwsError with everything that is wrong with it."""
    if not isinstance(values, Mapping):
        raise AwsError("InvalidParameterValue", f"no such fault: {values!r} is not a mapping")
    if mistakes := check(values):
        raise AwsError("InvalidParameterValue", f"no such fault: {'; '.join(each.message for each in mistakes)}")
    return Fault(**values)
