"""Pydantic's errors in the language's words: where they stand, what was probably meant, and YAML's traps."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union

from pydantic import BaseModel, Tag, ValidationError

from imagepipe.errors import Problem
from imagepipe.spec.document import Document, Path
from imagepipe.spec.models import STEP_KINDS
from imagepipe.values import Late

_TRAP = re.compile(r"0[0-7_]+|[-+]?\d+(:[0-5]?\d)+(\.\d*)?|yes|no|on|off", re.IGNORECASE)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'inline'?`, or nothing."""
    found = nearest(word, known)
    return f"; did you mean '{found}'?" if found else ""


def explain(error: ValidationError, document: Document, model: type[BaseModel], *, prefix: Path = ()) -> list[Problem]:
    """One problem for each thing wrong, in the document's order."""
    found: dict[Path, Problem] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # its items were refused, each with an error of its own
        path, keys = _walk(model, detail["loc"], detail["type"])
        path = (*prefix, *path)
        problem = _explain_one(dict(detail), path, keys, document)
        found.setdefault((*path, "?") if detail["type"] == "missing" else path, problem)
    return sorted(found.values(), key=lambda problem: (problem.line, problem.column))


def error_paths(error: ValidationError, model: type[BaseModel]) -> list[Path]:
    """The document's paths of what was refused; that of the parent where a key is missing."""
    paths = []
    for detail in error.errors(include_url=False):
        path, _ = _walk(model, detail["loc"], detail["type"])
        paths.append(path[:-1] if detail["type"] == "missing" else path)
    return paths


def trap_text(document: Document, path: Path) -> str | None:
    """What YAML 1.1 made of an unquoted scalar that surely meant something else."""
    raw = document.plain.get(path)
    if raw is None or not _TRAP.fullmatch(raw):
        return None
    return f'YAML 1.1 reads {raw} as {_read_as(_value_at(document.value, path))}; write it in quotes: "{raw}"'


def _read_as(value: object) -> str:
    if isinstance(value, bool):
        return f"the boolean {str(value).lower()}"
    return f"the number {value}"


def _value_at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _explain_one(detail: dict[str, Any], path: Path, keys: frozenset[str], document: Document) -> Problem:
    kind, value = detail["type"], detail["input"]
    context = detail.get("ctx") or {}
    if kind == "missing":
        missing = path[-1]
        return document.problem(path[:-1], f"key '{missing}' is required", key=True)
    if kind == "extra_forbidden":
        name = str(path[-1])
        known = ", ".join(sorted(keys))
        hint = None if nearest(name, keys) or not keys else f"known here: {known}"
        return document.problem(path, f"unknown key '{name}'{did_you_mean(name, keys)}", key=True, hint=hint)
    if kind == "union_tag_not_found":
        return _explain_kind(path, value, document)
    return document.problem(path, _message(kind, value, context, path, document, detail["msg"]))


def _message(kind: str, value: Any, context: dict[str, Any], path: Path, document: Document, msg: str) -> str:
    if isinstance(value, Late):
        return "`source` and `region` are known only while the build runs, and cannot be used here"
    raw = document.plain.get(path)
    if trap := trap_text(document, path):
        return trap
    shown = _shown(value)
    match kind:
        case "string_type" if raw is not None:
            return f'expected a text, found {_read_as(value)}; write it in quotes: "{raw}"'
        case "string_type":
            return f"expected a text, found {shown}"
        case "tuple_type" | "list_type":
            return (
                f"expected a list, found {shown}; write [{value}]"
                if isinstance(value, str | int | float)
                else f"expected a list, found {shown}"
            )
        case "dict_type" | "model_type" | "model_attributes_type" if raw is not None:
            return f'expected a mapping, found {_read_as(value)}; if a text is meant, write it in quotes: "{raw}"'
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"expected a mapping, found {shown}"
        case "bool_type" | "bool_parsing":
            return f"expected true or false, found {shown}"
        case "int_type" | "int_parsing" | "int_from_float" | "float_type" | "float_parsing":
            return f"expected a number, found {shown}"
        case "literal_error":
            expected = str(context.get("expected", ""))
            words = re.findall(r"'([^']*)'", expected)
            return f"must be {expected}, not {shown}{did_you_mean(str(value), words)}"
        case "greater_than_equal":
            return f"must be {context['ge']} or more, not {shown}"
        case "less_than_equal":
            return f"must be {context['le']} or less, not {shown}"
        case "too_short" | "string_too_short":
            return (
                "must not be empty"
                if context.get("min_length") == 1
                else f"too short: at least {context.get('min_length')}"
            )
        case "too_long" | "string_too_long":
            return f"too long: at most {context.get('max_length')}"
        case "string_pattern_mismatch":
            return f"{shown} does not have the form {context.get('pattern')}"
        case _:
            return msg[:1].lower() + msg[1:]


def _explain_kind(path: Path, value: Any, document: Document) -> Problem:
    if path and path[-1] == "output":
        if not isinstance(value, dict):
            return document.problem(path, f"expected a mapping, found {_shown(value)}")
        given = value.get("type")
        meant = did_you_mean(str(given), ["ebs", "instance-store"])
        return document.problem((*path, "type"), f"must be 'ebs' or 'instance-store', not {_shown(given)}{meant}")
    kinds = ", ".join(STEP_KINDS)
    if not isinstance(value, dict):
        return document.problem(path, f"a step is a mapping with one of {kinds}; found {_shown(value)}")
    there = [key for key in value if key in STEP_KINDS]
    if there:
        return document.problem(path, f"a step has exactly one of {kinds}; this has {' and '.join(there)}")
    for key in value:
        if (close := nearest(str(key), STEP_KINDS)) is not None:
            return document.problem((*path, key), f"unknown key '{key}'; did you mean '{close}'?", key=True)
    return document.problem(path, f"a step needs one of {kinds}; this has {', '.join(map(str, value)) or 'nothing'}")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "…") if isinstance(value, str) else text[:60]


def _walk(model: type[BaseModel], loc: tuple[str | int, ...], kind: str) -> tuple[Path, frozenset[str]]:
    """The document's path of a pydantic location (without its union labels), and the keys known at its parent."""
    path: list[str | int] = []
    here: Any = model
    keys: frozenset[str] = frozenset()
    for index, part in enumerate(loc):
        members = list(_members(here))
        tagged = [member for member, tags in members if part in tags]
        if tagged:
            here = tagged[0]
            continue
        step = _step(members, part)
        is_key = index == len(loc) - 1 and kind in ("extra_forbidden", "missing")
        if step is None and not is_key:
            continue  # a label of a union without tags
        keys = frozenset(name for member, _ in members if _is_model(member) for name in _names(member))
        path.append(part)
        here = step
    return tuple(path), keys


def _step(members: list[tuple[Any, frozenset[str]]], part: str | int) -> Any:
    for member, _ in members:
        origin, args = typing.get_origin(member), typing.get_args(member)
        if isinstance(part, int) and origin in (tuple, list):
            return args[0]
        if isinstance(part, str) and origin is dict:
            return args[1]
        if isinstance(part, str) and _is_model(member) and part in _names(member):
            return _names(member)[part]
    return None


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _names(model: type[BaseModel]) -> dict[str, Any]:
    return {
        field.alias or name: field.annotation if not field.metadata else Annotated[field.annotation, *field.metadata]
        for name, field in model.model_fields.items()
    }


def _members(annotation: Any, tags: frozenset[str] = frozenset()) -> Iterator[tuple[Any, frozenset[str]]]:
    """An annotation's alternatives, each with the tags that name it in a location."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        base, *extra = typing.get_args(annotation)
        named = frozenset(item.tag for item in extra if isinstance(item, Tag))
        yield from _members(base, tags | named)
    elif origin in (Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _members(member, tags)
    else:
        yield annotation, tags
