"""Values of variables, from the command line, variable files, the environment or the default, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.spec.models import Scalar, Variable

ENVIRONMENT_PREFIX = "IMAGEPIPE_VAR_"


@dataclass(frozen=True, slots=True)
class Unquoted:
    """A number or a boolean of a variable file."""

    value: int | float | bool
    text: str
    """Its text in the file: `3.10` for the number 3.1."""


@dataclass(frozen=True, slots=True)
class Given:
    """Values from outside the specs, for all specs of a call."""

    command_line: Mapping[str, str] = field(default_factory=dict)
    """Values of `--var`."""
    files: Mapping[str, Scalar | Unquoted] = field(default_factory=dict)
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
        try:
            value = _typed(raw, variable.default)
        except _RefusedError as error:
            shown = "the value" if variable.sensitive else repr(raw.text if isinstance(raw, Unquoted) else raw)
            refused[name] = f"{shown} {'would change' if variable.sensitive and error.changes else error}"
            continue
        allowed = None if variable.allowed is None else [_as_written(item) for item in variable.allowed]
        if allowed is not None and _as_written(value) not in allowed:
            shown = "the value" if variable.sensitive else repr(_as_written(value))
            refused[name] = f"{shown} is not allowed; allowed values: {', '.join(allowed)}"
        else:
            values[name] = value
    sensitive = frozenset(name for name, variable in declared.items() if variable.sensitive)
    return Resolved(values, missing, refused, sensitive)


def given_value(name: str, variable: Variable, given: Given) -> Scalar | None:
    """Return the value of a variable from outside the spec; None if it has its default."""
    raw = _raw(name, variable, given)
    value = None if raw is None else _typed(raw, variable.default)
    return None if value == variable.default else value


def _raw(name: str, variable: Variable, given: Given) -> Scalar | Unquoted | None:
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
    if variable.sensitive:
        return (
            f"set it in the environment as {ENVIRONMENT_PREFIX}{name}{own}, or in a --var-file of mode 600; others can"
            " read --var in the list of processes and in the shell's history"
        )
    return f"set it with --var {name}=…, --var-file, or in the environment as {ENVIRONMENT_PREFIX}{name}{own}"


class _RefusedError(Exception):
    """A value cannot become one of the default's type; its message follows the value."""

    def __init__(self, message: str, *, changes: bool = False) -> None:
        super().__init__(message)
        self.changes = changes
        """True if it could, but would not keep its text."""


def _typed(raw: Scalar | Unquoted, default: Scalar | None) -> Scalar:
    """Return a value from outside with the type of the default, and as it was written. Raises _RefusedError."""
    if isinstance(raw, Unquoted):
        if default is None:  # any type fits, so a number that would lose digits is text
            return raw.value if isinstance(raw.value, bool) or as_number(raw.text) is not None else raw.text
        if isinstance(default, bool) != isinstance(raw.value, bool) and not isinstance(default, str):
            raise _RefusedError(_type_of(default))
        raw = raw.text
    if not isinstance(raw, str) or default is None or isinstance(default, str):
        return raw
    if isinstance(default, bool):
        if raw.lower() not in ("true", "false"):
            raise _RefusedError(_type_of(default))
        return raw.lower() == "true"
    return _number(raw, default)


def _number(text: str, default: float) -> int | float:
    try:
        changed = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        raise _RefusedError(_type_of(default)) from None
    kept = as_number(text)
    if kept is None or (isinstance(default, int) and not isinstance(kept, int)):
        message = f"would become {changed}, because the default is a number; to keep such values, quote the default"
        raise _RefusedError(message, changes=True)
    return kept


def _type_of(default: Scalar) -> str:
    return f"does not have the type of the default ({type(default).__name__})"


def _as_written(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def as_number(text: str) -> int | float | None:
    """Return the number that a text is, if the number is written like that: not `3.10`, `007` or `1e3`."""
    bare = text.removeprefix("+")
    try:
        return next((value for value in (_int(bare), float(bare)) if str(value) == bare and bare[-1].isdigit()), None)
    except ValueError:
        return None


def _int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
