"""Values of variables, from the command line, variable files, the environment or the default, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagepipe.spec.models import Scalar, Variable

ENVIRONMENT_PREFIX = "IMAGEPIPE_VAR_"


@dataclass(frozen=True, slots=True)
class Given:
    """Values from outside the specs, for all specs of a call."""

    command_line: Mapping[str, str] = field(default_factory=dict)
    """Values of `--var`."""
    files: Mapping[str, Scalar] = field(default_factory=dict)
    """Values of `--var-file`; later files win."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resolved:
    """The variables of a spec."""

    values: dict[str, Any]
    missing: dict[str, str]
    """Names without a value, each with the ways to set it."""
    refused: dict[str, str]
    """Names whose value is not allowed, each with the reason."""
    sensitive: frozenset[str]


def resolve(declared: Mapping[str, Variable], given: Given) -> Resolved:
    """Return the value of every variable that has one."""
    values: dict[str, Any] = {}
    missing: dict[str, str] = {}
    refused: dict[str, str] = {}
    for name, variable in declared.items():
        raw = _raw(name, variable, given)
        if raw is None:
            missing[name] = _sources(name, variable)
            continue
        value = _like_default(raw, variable.default)
        if value is None:
            shown = "the value" if variable.sensitive else repr(raw)
            refused[name] = f"{shown} does not have the type of the default ({type(variable.default).__name__})"
        elif variable.allowed is not None and str(value) not in {str(item) for item in variable.allowed}:
            shown = "the value" if variable.sensitive else repr(str(value))
            refused[name] = f"{shown} is not allowed; allowed values: {', '.join(map(str, variable.allowed))}"
        else:
            values[name] = value
    sensitive = frozenset(name for name, variable in declared.items() if variable.sensitive)
    return Resolved(values, missing, refused, sensitive)


def given_value(name: str, variable: Variable, given: Given) -> Scalar | None:
    """Return the value of a variable from outside the spec; None if it has its default."""
    value = _raw(name, variable, given)
    return None if value == variable.default else value


def _raw(name: str, variable: Variable, given: Given) -> Scalar | None:
    if name in given.command_line:
        return given.command_line[name]
    if name in given.files:
        return given.files[name]
    if ENVIRONMENT_PREFIX + name in given.environment:
        return given.environment[ENVIRONMENT_PREFIX + name]
    if variable.env and variable.env in given.environment:
        return given.environment[variable.env]
    return variable.default


def _sources(name: str, variable: Variable) -> str:
    own = f", or {variable.env}" if variable.env else ""
    return f"set it with --var {name}=…, --var-file, or in the environment as {ENVIRONMENT_PREFIX}{name}{own}"


def _like_default(raw: Scalar, default: Scalar | None) -> Scalar | None:
    """Convert a string from outside to the type of the default; None if it cannot be converted."""
    if not isinstance(raw, str) or default is None or isinstance(default, str):
        return raw
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(raw.lower())
    try:
        return int(raw) if isinstance(default, int) else float(raw)
    except ValueError:
        return None
