"""The functions of HCL templates, for constants. Functions that accept deferred texts are in `evaluate`."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import posixpath
import re
import urllib.parse
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from imagepipe.convert.values import (
    DAY,
    HOUR,
    MINUTE,
    MONTH,
    RFC_3339,
    SECOND,
    TIME_DIGITS,
    YEAR,
    Later,
    Value,
    is_deferred,
    text_of,
    to_string,
)

MAX_ITEMS = 10_000
"""Largest list, or text in thousands of characters, that a function makes."""
_FORMAT = re.compile(
    r"%(?P<index>\[\d+\])?(?P<flags>[-+ #0]*)(?P<width>\d*)(?:\.(?P<precision>\d+))?(?P<verb>[a-zA-Z%])"
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s)")
_DATE_TOKEN = re.compile(r"'(?P<quoted>(?:[^']|'')*)'|(?P<letters>([A-Za-z])\3*)|(?P<other>[^A-Za-z']+)")
_DATE_PARTS = {"YYYY": YEAR, "YY": YEAR[2:], "MM": MONTH, "DD": DAY, "hh": HOUR, "mm": MINUTE, "ss": SECOND}
_UTC = {"Z": "Z", "ZZZZ": "+0000", "ZZZZZ": "+00:00", "ZZZ": "UTC"}
_GO_DATE = re.compile(r"2006|01|02|15|04|05|06|MST|Z07:00|Z0700|-07:00|-0700")
_GO_PARTS = {
    "2006": YEAR,
    "01": MONTH,
    "02": DAY,
    "15": HOUR,
    "04": MINUTE,
    "05": SECOND,
    "06": YEAR[2:],
    "MST": "UTC",
    "Z07:00": "Z",
    "Z0700": "Z",
    "-07:00": "+00:00",
    "-0700": "+0000",
}
_STRFTIME = {"Y": YEAR, "m": MONTH, "d": DAY, "H": HOUR, "M": MINUTE, "S": SECOND, "y": YEAR[2:], "%": "%"}


class FunctionError(Exception):
    """A function cannot be evaluated; the message is the reason."""


def go_date(layout: str) -> str:
    """Return the build's time in a layout of Go, such as `2006-01-02`. Raises FunctionError."""
    found = _GO_DATE.sub(lambda part: _GO_PARTS[part.group()], layout)
    if left := re.search(r"Jan(uary)?|Mon(day)?|PM|pm|\d", found):
        raise FunctionError(f"the date layout '{layout}' has '{left.group()}', which is not supported")
    return found


def _formatdate(layout: str, time: str) -> str:
    if time != RFC_3339:
        raise FunctionError("formatdate is supported for timestamp() only")
    found = []
    for token in _DATE_TOKEN.finditer(layout):
        if (letters := token["letters"]) is not None:
            part = _DATE_PARTS.get(letters) or _UTC.get(letters)
            if part is None:
                raise FunctionError(f"formatdate's '{letters}' is not supported")
            found.append(part)
        else:
            found.append(token["other"] if token["quoted"] is None else token["quoted"].replace("''", "'"))
    return "".join(found)


def _strftime(layout: str) -> str:
    found = re.sub(r"%(.)", lambda part: _STRFTIME.get(part[1], part[0]), layout)
    if left := re.search(r"%[A-Za-z]", found):
        raise FunctionError(f"strftime's '{left.group()}' is not supported")
    return found


def _timeadd(time: str, duration: str) -> Later:
    parts = _DURATION.findall(duration)
    if time != RFC_3339 or not parts or "".join(a + b for a, b in parts) != duration:
        raise FunctionError("timeadd is supported for timestamp() and a duration of hours, minutes and seconds")
    return Later(int(sum(float(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)))


def format_text(layout: str, *arguments: Value) -> Value:
    """Return `format(…)`; `%s` and `%v` also accept deferred texts."""
    parts: list[Value] = []
    position = used = 0
    for found in _FORMAT.finditer(layout):
        parts.append(layout[position : found.start()])
        position = found.end()
        if found["verb"] == "%":
            parts.append("%")
            continue
        if found["index"]:
            used = int(found["index"][1:-1]) - 1
        if not 0 <= used < len(arguments):
            raise FunctionError("format has too few arguments")
        parts.append(_formatted(found, arguments[used]))
        used += 1
    return text_of([*parts, layout[position:]])


def _formatted(found: re.Match[str], value: Value) -> Value:
    verb, width = found["verb"], int(found["width"] or 0)
    if width > 1000 or int(found["precision"] or 0) > 1000:
        raise FunctionError("format has a field wider than 1,000")
    if is_deferred(value):
        if verb in "sv" and not width:
            return value
        raise FunctionError(f"'{found.group()}' cannot format a variable")
    if verb in "sv":
        text = json.dumps(value) if isinstance(value, list | dict) else to_string(value)
        return text.ljust(width) if "-" in found["flags"] else text.rjust(width)
    if verb == "q":
        return json.dumps(to_string(value))
    if verb == "t":
        return to_string(value)
    if verb not in "dfgexXob" or not isinstance(number := _number(value), int | float):
        raise FunctionError(f"format's '{found.group()}' is not supported")
    precision = f".{found['precision']}" if found["precision"] else ""
    if verb in "dxXob":
        return format(int(number), f"{_python_flags(found['flags'])}{width or ''}{verb}")
    return format(float(number), f"{_python_flags(found['flags'])}{width or ''}{precision}{verb}")


def _python_flags(flags: str) -> str:
    sign = "+" if "+" in flags else ""
    return ("<" if "-" in flags else "") + sign + ("0" if "0" in flags and "-" not in flags else "")


def _number(value: Value) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise FunctionError(f"{to_string(value) or 'null'} is not a number")
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            raise FunctionError(f"'{value}' is not a number") from None
        return int(number) if number.is_integer() and len(value) < 20 else number
    return value


def _regex(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(re.sub(r"\(\?P?<", "(?P<", pattern).replace("[[:alnum:]]", "[0-9A-Za-z]"))
    except (re.error, RecursionError, OverflowError) as error:
        raise FunctionError(f"the regular expression '{pattern}' is not supported: {error}") from None


def _regex_replace(text: str, pattern: str, replacement: str) -> str:
    python = re.sub(r"\$\{?(\w+)\}?", r"\\g<\1>", replacement.replace("\\", "\\\\"))
    try:
        return _regex(pattern).sub(python, text)
    except (re.error, IndexError) as error:
        raise FunctionError(f"the replacement '{replacement}' is not supported: {error}") from None


def _replace(text: str, search: str, replacement: str) -> str:
    if len(search) > 1 and search.startswith("/") and search.endswith("/"):
        return _regex_replace(text, search[1:-1], replacement)
    return text.replace(search, replacement)


def _regex_groups(found: re.Match[str]) -> Value:
    if found.re.groupindex:
        return found.groupdict()
    return list(found.groups()) if found.re.groups else found.group()


def _regex_first(pattern: str, text: str) -> Value:
    found = _regex(pattern).search(text)
    if found is None:
        raise FunctionError(f"'{text}' does not match '{pattern}'")
    return _regex_groups(found)


def _indent(width: int, text: str) -> str:
    return text.replace("\n", "\n" + " " * width)


def _substr(text: str, start: int, length: int) -> str:
    start = len(text) + start if start < 0 else start
    return text[start:] if length < 0 else text[start : start + length]


def _element(items: list[Value], index: int) -> Value:
    if not items:
        raise FunctionError("element of an empty list")
    return items[index % len(items)]


def _lookup(mapping: dict[str, Value], key: str, *default: Value) -> Value:
    if key in mapping:
        return mapping[key]
    if not default:
        raise FunctionError(f"lookup finds no '{key}'")
    return default[0]


def _index(items: list[Value], value: Value) -> int:
    if value not in items:
        raise FunctionError("index finds no such item")
    return items.index(value)


def _flatten(items: Iterable[Value]) -> list[Value]:
    found: list[Value] = []
    for item in items:
        found += _flatten(item) if isinstance(item, list) else [item]
    return found


def _distinct(items: Iterable[Value]) -> list[Value]:
    found: list[Value] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _coalesce(*values: Value) -> Value:
    for value in values:
        if value not in (None, ""):
            return value
    raise FunctionError("every argument of coalesce is empty")


def _range(*bounds: int) -> list[int]:
    start, end, step = (0, bounds[0], 1) if len(bounds) == 1 else (bounds[0], bounds[1], (*bounds, 1)[2])
    if step == 0 or abs((end - start) / step) > MAX_ITEMS:
        raise FunctionError("range has too many numbers")
    return list(range(start, end, step))


def _setproduct(*lists: list[Value]) -> list[Value]:
    if math.prod(len(each) for each in lists) > MAX_ITEMS:
        raise FunctionError("setproduct has too many items")
    return [list(pair) for pair in product(*lists)]


def _toset(items: list[Value]) -> list[Value]:
    return sorted(_distinct(items), key=str)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except ValueError:
        raise FunctionError("base64decode of a text that is not base64, or not UTF-8") from None


def _jsondecode(text: str) -> Value:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FunctionError("jsondecode of a text that is not JSON") from None


def _jsonencode(value: Value) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _tonumber(value: Value) -> Value:
    return None if value is None else _number(value)


def _tobool(value: Value) -> Value:
    if value in (True, False, None):
        return value
    if value not in ("true", "false"):
        raise FunctionError(f"'{value}' is not a boolean")
    return value == "true"


def _digest(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()


def _keys(mapping: dict[str, Value]) -> list[str]:
    return sorted(mapping)


def _values(mapping: dict[str, Value]) -> list[Value]:
    return [mapping[key] for key in sorted(mapping)]


def _merge(*mappings: dict[str, Value] | None) -> dict[str, Value]:
    return {key: value for mapping in mappings if mapping is not None for key, value in mapping.items()}


def _concat(*lists: list[Value]) -> list[Value]:
    return [item for each in lists for item in each]


def _chunks(items: list[Value], size: int) -> list[Value]:
    if size < 1:
        raise FunctionError("chunklist needs a size of 1 or more")
    return [items[start : start + size] for start in range(0, len(items), size)]


def _slice(items: list[Value], start: int, end: int) -> list[Value]:
    return items[start:end]


MOVING: dict[str, Callable[..., Any]] = {
    "chunklist": _chunks,
    "concat": _concat,
    "element": _element,
    "flatten": _flatten,
    "format": format_text,
    "keys": _keys,
    "lookup": _lookup,
    "merge": _merge,
    "reverse": lambda items: list(reversed(items)),
    "slice": _slice,
    "tolist": list,
    "tomap": dict,
    "values": _values,
    "zipmap": lambda keys, values: dict(zip(keys, values, strict=False)),
}
"""Functions that move values and do not look into them, so that the values may be deferred."""

CONSTANT: dict[str, Callable[..., Any]] = {
    "abs": lambda x: abs(_number(x)),
    "base64decode": _decoded,
    "base64encode": lambda text: base64.b64encode(text.encode()).decode(),
    "basename": posixpath.basename,
    "ceil": lambda x: math.ceil(_number(x)),
    "chomp": lambda text: text.rstrip("\r\n"),
    "clean_resource_name": lambda text: re.sub(rf"[^A-Za-z0-9()\[\] ./'@_{TIME_DIGITS}-]", "-", text),
    "coalesce": _coalesce,
    "coalescelist": lambda *lists: next((each for each in lists if each), []),
    "compact": lambda items: [item for item in items if item not in (None, "")],
    "contains": lambda items, value: value in items,
    "convert": lambda value, _: value,
    "dirname": lambda path: posixpath.dirname(path) or ".",
    "distinct": _distinct,
    "floor": lambda x: math.floor(_number(x)),
    "formatdate": _formatdate,
    "formatlist": lambda layout, items: [format_text(layout, item) for item in items],
    "indent": _indent,
    "index": _index,
    "join": lambda separator, *lists: separator.join(to_string(item) for item in _concat(*lists)),
    "jsondecode": _jsondecode,
    "jsonencode": _jsonencode,
    "length": len,
    "lower": str.lower,
    "max": lambda *xs: max(map(_number, xs)),
    "md5": _digest("md5"),
    "min": lambda *xs: min(map(_number, xs)),
    "parseint": lambda text, base: int(text, base),
    "range": _range,
    "regex": _regex_first,
    "regexall": lambda pattern, text: [_regex_groups(found) for found in _regex(pattern).finditer(text)],
    "regex_replace": _regex_replace,
    "replace": _replace,
    "setintersection": lambda first, *rest: [item for item in first if all(item in other for other in rest)],
    "setproduct": _setproduct,
    "setsubtract": lambda first, second: [item for item in first if item not in second],
    "setunion": lambda *lists: _toset(_concat(*lists)),
    "sha1": _digest("sha1"),
    "sha256": _digest("sha256"),
    "sha512": _digest("sha512"),
    "signum": lambda x: (_number(x) > 0) - (_number(x) < 0),
    "sort": lambda items: sorted(map(to_string, items)),
    "split": lambda separator, text: text.split(separator) if separator else list(text),
    "strcontains": lambda text, part: part in text,
    "endswith": str.endswith,
    "startswith": str.startswith,
    "strftime": _strftime,
    "strlen": len,
    "strrev": lambda text: text[::-1],
    "substr": _substr,
    "sum": lambda items: sum(map(_number, items)),
    "timeadd": _timeadd,
    "title": lambda text: re.sub(r"\b[a-z]", lambda letter: letter.group().upper(), text),
    "tobool": _tobool,
    "tonumber": _tonumber,
    "toset": _toset,
    "tostring": lambda value: None if value is None else to_string(value),
    "trim": lambda text, characters: text.strip(characters),
    "trimprefix": str.removeprefix,
    "trimspace": str.strip,
    "trimsuffix": str.removesuffix,
    "upper": str.upper,
    "urlencode": urllib.parse.quote_plus,
}
"""Functions of constants, by name."""

RANDOM = frozenset({"uuidv4", "uuidv5", "bcrypt"})
"""Functions whose result differs in each run."""
OUTSIDE = {
    "aws_secretsmanager": "declare a sensitive variable, and set it from the secret in the environment",
    "aws_secretsmanager_raw": "declare a sensitive variable, and set it from the secret in the environment",
    "consul_key": "declare a variable, and set it with --var",
    "vault": "declare a sensitive variable, and set it from the secret in the environment",
}
"""Functions that ask another service, with the way out."""
