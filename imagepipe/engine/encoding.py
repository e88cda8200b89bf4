"""Encode the outputs of stages as JSON, and decode them by their types, so that another process can resume a run.

An output is a frozen value (docs/explanation/architecture.md): dataclasses of strings, numbers, tuples and mappings.
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
    """Return the type of a stage's output: the T of the `Stage[T]` that its class or a base class inherits from."""
    for kind in type(stage).__mro__:
        for base in getattr(kind, "__orig_bases__", ()):
            if get_origin(base) is Stage:
                return get_args(base)[0]
    raise TypeError(f"{type(stage).__name__} does not declare the type of its output")


def encode(value: Any) -> Any:
    """Return a value as JSON. Raises TypeError for a value that JSON cannot hold."""
    if value is None or isinstance(value, PLAIN):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: encode(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): encode(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} cannot be written to the journal")


def decode(kind: Any, json: Any) -> Any:
    """Return the value of this type. Raises ImagepipeError if the JSON does not describe one."""
    try:
        return _decode(kind, json)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ImagepipeError(f"an output in the journal is not {kind}: {error!r}") from error


def _decode(kind: Any, json: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or kind is None or kind is type(None):
        return _as_is(json)
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
    raise TypeError(f"{json!r} is not {kind}")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _as_is(json: Any) -> Any:
    """Return a value of type Any, such as an answer of EC2, as it is."""
    return json


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{key!r} cannot be a key in JSON")
    return key
