"""Outputs of stages as JSON and back, by their types: that is what lets a run go on in another process.

An output is a frozen value (docs/explanation/architecture.md): dataclasses of texts, numbers, tuples and mappings.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin

from imagepipe.engine.stage import Stage
from imagepipe.errors import ImagepipeError

PLAIN = (str, int, float, bool)


def output_type(stage: Stage[Any]) -> Any:
    """What a stage gives: the T of the `Stage[T]` that its class, or one that it is made of, is."""
    for kind in type(stage).__mro__:
        for base in getattr(kind, "__orig_bases__", ()):
            if get_origin(base) is Stage:
                return get_args(base)[0]
    raise TypeError(f"{type(stage).__name__} does not say what it gives")


def encode(value: Any) -> Any:
    """A value as JSON takes it. Raises TypeError for what is none."""
    if value is None or isinstance(value, PLAIN):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): encode(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is no value that a run can go on with")


def decode(kind: Any, json: Any) -> Any:
    """The value of this type. Raises ImagepipeError where the JSON is not of one."""
    try:
        return _decode(kind, json)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ImagepipeError(f"an output in the journal is no {kind}: {error!r}") from error


def _decode(kind: Any, json: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or kind is None or kind is type(None):
        return _frozen(json)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in inner if choice is not type(None)]
        return None if json is None else _decode(choices[0], json)
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return tuple(_decode(inner[0], item) for item in json)
        return tuple(_decode(each, item) for each, item in zip(inner, json, strict=True))
    if origin is dict or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return {key: _decode(inner[1], item) for key, item in json.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        return kind(**{item.name: _decode(hints[item.name], json[item.name]) for item in fields(kind)})
    if isinstance(kind, type) and isinstance(json, kind):
        return json
    if kind is float and isinstance(json, int):
        return float(json)
    raise TypeError(f"{json!r} is no {kind}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _frozen(json: Any) -> Any:
    """What stands where anything may: EC2's own answers, in which nothing is a tuple."""
    return json


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{key!r} is no key that JSON has")
    return key
