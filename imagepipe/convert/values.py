"""Values of a template: constants, and texts that only a build can complete."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeAlias

from imagepipe.convert.syntax import Place
from imagepipe.dataclass import dataclass

Value: TypeAlias = Any
"""A value of a template, which may be anything: None, bool, int, float, str, list, dict, or a class of this module."""

TIME_DIGITS = "".join(chr(0x10FF00 + index) for index in range(14))
"""Stand-ins in strings for the digits of the build's time, YYYYMMDDhhmmss, which functions can move and replace.

Characters of a private use area; `read_text` refuses files that contain them."""
YEAR, MONTH, DAY = TIME_DIGITS[:4], TIME_DIGITS[4:6], TIME_DIGITS[6:8]
HOUR, MINUTE, SECOND = TIME_DIGITS[8:10], TIME_DIGITS[10:12], TIME_DIGITS[12:]
RFC_3339 = f"{YEAR}-{MONTH}-{DAY}T{HOUR}:{MINUTE}:{SECOND}Z"
BUILD_TIME = f"{YEAR}{MONTH}{DAY}T{HOUR}{MINUTE}{SECOND}Z"
"""The text of `build.timestamp`."""
_PLACES = {digit: index if index < 8 else index + 1 for index, digit in enumerate(TIME_DIGITS)}
"""Index of each digit in `build.timestamp`, which has a T after the day."""
_TIMES = re.compile(f"{BUILD_TIME}|[{TIME_DIGITS[0]}-{TIME_DIGITS[-1]}]+")
_BRACES = re.compile(r"\{\{|\{%|\{\Z")


class _Unset:
    """The value of a variable without a default."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = _Unset()


class LeftOut(Exception):
    """A part of the template that has no counterpart, with the place and the way out."""

    def __init__(self, at: Place, what: str, instead: str) -> None:
        super().__init__(what)
        self.at = at
        self.what = what
        self.instead = instead


@dataclass(frozen=True, slots=True)
class Symbol:
    """An expression of imagepipe, such as `var.name`."""

    expression: str
    default: Value = UNSET
    """Its value with the defaults of all variables; UNSET if that is not known."""
    variables: frozenset[str] = frozenset()
    """Variables that it uses, as the template names them."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string with symbols in it."""

    parts: tuple[str | Symbol, ...]


@dataclass(frozen=True, slots=True)
class Ami:
    """The image of a data source: the value of `data.amazon-ami.x.id`."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Later:
    """A time this long after the build: the value of `timeadd(timestamp(), …)`."""

    seconds: int


def text_of(parts: Iterable[Value]) -> Value:
    """Join strings, symbols and texts: a string if there is no symbol, a symbol if there is nothing else."""
    found: list[str | Symbol] = []
    for part in parts:
        for piece in part.parts if isinstance(part, Text) else (part,):
            if isinstance(piece, str) and found and isinstance(found[-1], str):
                found[-1] += piece
            elif piece != "":
                found.append(piece)
    if not found:
        return ""
    return found[0] if len(found) == 1 else Text(tuple(found))


def safe_name(name: str) -> str:
    """Return the name that a variable has in a spec, where names have letters, digits and underscores."""
    found = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return found if re.match(r"[A-Za-z_]", found) else f"_{found}"


def is_deferred(value: Value) -> bool:
    """Return whether a value contains anything that is not a constant."""
    if isinstance(value, list):
        return any(is_deferred(item) for item in value)
    if isinstance(value, dict):
        return any(is_deferred(item) for item in value.values())
    return isinstance(value, Symbol | Text)


def variables_of(value: Value) -> frozenset[str]:
    """Return the names of the variables that a value uses."""
    if isinstance(value, list):
        return frozenset(name for item in value for name in variables_of(item))
    if isinstance(value, dict):
        return variables_of(list(value.values()))
    if isinstance(value, Text):
        return variables_of(list(value.parts))
    return value.variables if isinstance(value, Symbol) else frozenset()


def with_defaults(value: Value) -> Value:
    """Return a value with the defaults of its variables; UNSET if one of them has none."""
    if isinstance(value, Symbol):
        return value.default
    if isinstance(value, Text):
        parts = [with_defaults(part) for part in value.parts]
        return UNSET if UNSET in parts else "".join(to_string(part) for part in parts)
    if isinstance(value, list):
        items = [with_defaults(item) for item in value]
        return UNSET if any(item is UNSET for item in items) else items
    if isinstance(value, dict):
        pairs = {key: with_defaults(item) for key, item in value.items()}
        return UNSET if any(item is UNSET for item in pairs.values()) else pairs
    return value


def to_string(value: Value) -> str:
    """Return a constant as HCL converts it to a string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)


def template_of(value: Value) -> str:
    """Return a string, a symbol or a text as a text of a spec, in which `{{` means a template."""
    if isinstance(value, Symbol):
        return "{{ " + _without_parentheses(value.expression) + " }}"
    if isinstance(value, Text):
        last = len(value.parts) - 1
        return "".join(
            template_of(part) if isinstance(part, Symbol) else _literal(part, before_symbol=index < last)
            for index, part in enumerate(value.parts)
        )
    return _literal(value, before_symbol=False)


def _without_parentheses(expression: str) -> str:
    """Remove a pair of parentheses around the whole of an expression without strings."""
    if not expression.startswith("(") or "'" in expression:
        return expression
    depth = 0
    for index, character in enumerate(expression):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return expression[1:-1] if index == len(expression) - 1 else expression
    return expression


def _literal(text: str, *, before_symbol: bool) -> str:
    pieces: list[str] = []
    position = 0
    for found in _TIMES.finditer(text):
        pieces.append(_without_braces(text[position : found.start()], before_symbol=True))
        pieces.append("{{ " + " ~ ".join(_time_expressions(found.group())) + " }}")
        position = found.end()
    pieces.append(_without_braces(text[position:], before_symbol=before_symbol))
    return "".join(pieces)


def _without_braces(text: str, *, before_symbol: bool) -> str:
    """Escape the braces that would begin a template, also one right before a template."""

    def escaped(found: re.Match[str]) -> str:
        if found.group() == "{" and not before_symbol:
            return "{"
        return "{{ '" + found.group() + "' }}"

    return _BRACES.sub(escaped, text) if "{" in text else text


def _time_expressions(digits: str) -> list[str]:
    if digits == BUILD_TIME:
        return ["build.timestamp"]
    found: list[str] = []
    start = end = -1
    for digit in digits:
        place = _PLACES[digit]
        if place == end:
            end += 1
            continue
        if start >= 0:
            found.append(f"build.timestamp[{start}:{end}]")
        start, end = place, place + 1
    return [*found, f"build.timestamp[{start}:{end}]"]


def expression_of(value: Value) -> str:
    """Return a value as a Jinja expression."""
    if isinstance(value, Symbol):
        return value.expression
    if isinstance(value, Text):
        return "(" + " ~ ".join(expression_of(part) for part in value.parts) + ")"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "none"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(expression_of(item) for item in value) + "]"
    raise TypeError(f"{type(value).__name__} in an expression")


def _quoted(text: str) -> str:
    pieces: list[str] = []
    position = 0
    for found in _TIMES.finditer(text):
        if found.start() > position:
            pieces.append(_string(text[position : found.start()]))
        pieces += _time_expressions(found.group())
        position = found.end()
    if position < len(text) or not pieces:
        pieces.append(_string(text[position:]))
    return pieces[0] if len(pieces) == 1 else "(" + " ~ ".join(pieces) + ")"


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\r", "\\r")
    return f"'{escaped}'"
