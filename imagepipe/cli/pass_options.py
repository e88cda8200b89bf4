"""A command's arguments and options in one dataclass, so that no command has a dozen parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, TypeVar, cast, get_type_hints

OptionsT = TypeVar("OptionsT")
R = TypeVar("R")


def pass_options(kind: type[OptionsT]) -> Callable[[Callable[[OptionsT], R]], Callable[..., R]]:
    """Call a command with one dataclass that holds its arguments and options.

    A field is named after its parameter. A field that is a dataclass itself, such as CloudOptions, takes its values
    from the same parameters.
    """

    def decorate(command: Callable[[OptionsT], R]) -> Callable[..., R]:
        @wraps(command)
        def called(**parameters: object) -> R:
            return command(_collected(kind, parameters))

        return called

    return decorate


def _collected(kind: type[OptionsT], parameters: Mapping[str, object]) -> OptionsT:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in fields(cast(Any, kind)):
        hint = hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            values[field.name] = _collected(hint, parameters)
        elif field.name in parameters:
            values[field.name] = parameters[field.name]
    return kind(**values)
