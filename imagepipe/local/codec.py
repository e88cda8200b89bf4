"""Frozen dataclasses to JSON and back, by their type hints.

It supports the few types that records consist of: scalars, bytes, paths, datetimes, optionals, tuples, maps with string
keys, and nested records. A field that an older record lacks takes its default.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import types
import typing
from collections.abc import Callable, Hashable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from imagepipe.clock import iso, parse_iso

T = TypeVar("T")
READERS: Mapping[Hashable, Callable[[Any], Any]] = {datetime: parse_iso, bytes: base64.b64decode, Path: Path}


def dumps(record: object) -> str:
    """Write the record as one line of JSON."""
    return json.dumps(_plain(record), separators=(",", ":"), ensure_ascii=False)


def loads(kind: type[T], text: str) -> T:
    """Read a record that `dumps` wrote."""
    return cast(T, _reader(cast(Any, kind))(json.loads(text)))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


@cache
def _reader(hint: Hashable) -> Callable[[Any], Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        [inner] = [_reader(argument) for argument in arguments if argument is not type(None)]
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        item = _reader(arguments[0])
        return lambda value: tuple(item(element) for element in value)
    if origin is not None:  # a map with string keys
        content = _reader(arguments[1])
        return lambda value: {key: content(element) for key, element in value.items()}
    if hint in READERS:
        return READERS[hint]
    if dataclasses.is_dataclass(hint):
        return _record_reader(cast(type[object], hint))
    return lambda value: value


def _record_reader(kind: type[object]) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    readers = {name: _reader(hint) for name, hint in hints.items()}
    return lambda value: kind(**{name: readers[name](item) for name, item in value.items() if name in readers})
