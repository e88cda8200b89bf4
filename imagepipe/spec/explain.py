"""Pydantic's errors as problems of a spec: position, probable meaning, and YAML's traps."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BaseModel, Tag, ValidationError

from imagepipe.errors import Problem
from imagepipe.late import Late
from imagepipe.spec import packer
from imagepipe.spec.document import Document, KeyPath
from imagepipe.spec.old_spellings import replacement
from imagepipe.spec.step_models import STEP_KINDS
from imagepipe.spec.tests import TEST_KINDS
from imagepipe.step_kinds import installed_kinds

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LATE_HERE = "`source` and `region` are known only while the build runs, and cannot be used here"
_TRAP = re.compile(r"0[0-7_]+|[-+]?\d+(:[0-5]?\d)+(\.\d*)?|yes|no|on|off", re.IGNORECASE)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known word that was probably meant; `cutoff` is the least likeness, from 0 to 1."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'inline'?`, or an empty string."""
    found = nearest(word, known)
    return f"; did you mean '{found}'?" if found else ""


def explain(
    error: ValidationError, document: Document, model: type[BaseModel], *, prefix: KeyPath = ()
) -> list[Problem]:
    """Return a problem for each error, in the document's order."""
    found: dict[KeyPath, Problem] = {}
    details = error.errors(include_url=False)
    meant = _meant(details, model)
    for detail in details:
        if detail["type"] == "too_short" and detail["input"]:
            continue  # each refused item has an error of its own
        path, keys = _walk(model, detail["loc"], detail["type"])
        if detail["type"] == "missing" and path in meant:
            continue  # it is misspelt, which has an error of its own
        path = _as_written((*prefix, *path), document, whole=detail["type"] == "missing")
        problem = _explain_one(dict(detail), path, keys, document)
        found.setdefault((*path, "?") if detail["type"] == "missing" else path, problem)
    return sorted(found.values(), key=lambda problem: (problem.line, problem.column))


def _meant(details: Sequence[ErrorDetails], model: type[BaseModel]) -> set[KeyPath]:
    """Return the paths that unknown keys were probably meant to have."""
    meant: set[KeyPath] = set()
    for detail in details:
        if detail["type"] == "extra_forbidden":
            path, keys = _walk(model, detail["loc"], detail["type"])
            if (close := nearest(str(path[-1]), keys)) is not None:
                meant.add((*path[:-1], close))
    return meant


def _as_written(path: KeyPath, document: Document, *, whole: bool) -> KeyPath:
    """Return a path without the keys that a short form leaves out: `shell: [a, 5]` has no `inline`."""
    written: KeyPath = ()
    for part in path[:-1] if whole else path:
        if (*written, part) in document.values or (*written, part) in document.keys:
            written = (*written, part)
    return (*written, path[-1]) if whole and path else written


def error_paths(error: ValidationError, model: type[BaseModel]) -> list[KeyPath]:
    """Return the document's paths of refused values; the parent's path if a key is missing."""
    paths = []
    for detail in error.errors(include_url=False):
        path, _ = _walk(model, detail["loc"], detail["type"])
        paths.append(path[:-1] if detail["type"] == "missing" else path)
    return paths


def trap_text(document: Document, path: KeyPath, *, is_number: bool = False) -> str | None:
    """Return a message for an unquoted scalar that YAML 1.1 misreads (`is_number`: a number is expected)."""
    raw = document.plain.get(path)
    if raw is None or not _TRAP.fullmatch(raw):
        return None
    advice = "write it without leading zeros and colons" if is_number else f'write it in quotes: "{raw}"'
    return f"YAML 1.1 reads {raw} as {_read_as(value_at(document.value, path))}; {advice}"


def loses(document: Document, path: KeyPath) -> str | None:
    """Return a message for an unquoted number that does not keep its text: 1.20 becomes 1.2."""
    raw = document.plain.get(path)
    value = value_at(document.value, path) if raw is not None else None
    if raw is None or isinstance(value, bool) or str(value) == raw.removeprefix("+"):
        return None
    return f'YAML 1.1 reads {raw} as the number {value}; if a string is meant, write it in quotes: "{raw}"'


def _read_as(value: object) -> str:
    return f"the boolean {str(value).lower()}" if isinstance(value, bool) else f"the number {value}"


def value_at(value: Any, path: KeyPath) -> Any:
    """Return the value at a path of a document's value; None if the path does not exist."""
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _explain_one(detail: dict[str, Any], path: KeyPath, keys: frozenset[str], document: Document) -> Problem:
    kind, value = detail["type"], detail["input"]
    context = detail.get("ctx") or {}
    if kind == "missing":
        missing = path[-1]
        return document.problem(path[:-1], f"key '{missing}' is required", key=True)
    if kind == "extra_forbidden":
        name = str(path[-1])
        if renamed := replacement(path):
            return document.problem(path, f"key '{name}' is replaced by '{renamed[0]}'", key=True, hint=renamed[1])
        if packers := packer.hint(name):
            return document.problem(path, f"unknown key '{name}'", key=True, hint=packers)
        known = ", ".join(sorted(keys))
        hint = None if nearest(name, keys) or not keys else f"known here: {known}"
        if "within" in keys and name in ("retries", "timeout"):
            hint = "such a test is tried again until it holds: within: 2m sets the time for that"
        return document.problem(path, f"unknown key '{name}'{did_you_mean(name, keys)}", key=True, hint=hint)
    if kind == "union_tag_not_found":
        return _explain_kind(path, value, document)
    is_key = detail["loc"][-1] == "[key]"
    if kind == "string_type" and (text := _split_by_colon(value, path, document)):
        quoted = _quoted(text)
        hint = f"quote all of it: {quoted}" if quoted else "write it below a |, which takes any text"
        colon = "ends with a colon" if text.endswith(":") else "contains a colon and a space"
        message = f"YAML reads this as a mapping with the key '{next(iter(value))}', because it {colon}"
        return document.problem(path, message, hint=hint)
    message = _message(kind, value, context, path, document, detail["msg"])
    return document.problem(path, message, key=is_key, hint=_hint(kind, value, path))


def _split_by_colon(value: Any, path: KeyPath, document: Document) -> str | None:
    """Return the text of an unquoted string that YAML reads as a mapping of one key, as in `- echo "a: b"`."""
    if not isinstance(value, dict) or len(value) != 1 or not isinstance(path[-1], int):
        return None
    (key,) = value
    start, end = document.keys.get((*path, key)), document.values.get((*path, key))
    if start is None or end is None or not start.line == end.line == end.last:
        return None
    whole = document.lines[start.line - 1][start.column - 1 : end.column - 1 + end.length].strip()
    before = document.lines[start.line - 1][: start.column - 1].rstrip()
    return None if before.endswith("{") else whole


def _quoted(text: str) -> str | None:
    """Return the text in quotes; None if it contains both kinds, so that a block is easier to read."""
    if "'" not in text:
        return f"'{text}'"
    return f'"{text}"' if '"' not in text and "\\" not in text else None


def _hint(kind: str, value: Any, path: KeyPath) -> str | None:
    """Return the hint for a wrong short form, or for a limit of EC2."""
    if kind == "less_than_equal" and path == ("output", "size_gib"):
        return "EC2 accepts no instance-store image with a larger root; put other data on volumes"
    if kind not in ("dict_type", "model_type", "model_attributes_type") or not isinstance(value, str | int | float):
        return None
    if len(path) == 2 and path[0] == "variables":
        return f"write {path[1]}: {{default: {value}}}"
    if path[:3] == ("output", "encrypt", "per_region"):
        return f"write {path[3]}: {{kms_key: {value}}}"
    if path[-1] in ("stdout", "stderr") and path[:1] == ("test",):
        return f"write {path[-1]}: {{contains: {value}}}"
    if path[-1:] == ("reboot",):
        return f"write reboot: {{timeout: {value}}}"
    return None


def _message(kind: str, value: Any, context: dict[str, Any], path: KeyPath, document: Document, msg: str) -> str:
    if isinstance(value, Late):
        return LATE_HERE
    raw = document.plain.get(path)
    if trap := trap_text(document, path):
        return trap
    shown = _shown(value)
    match kind:
        case "string_type" | "dict_type" | "model_type" if _is_default(path):
            return f"expected a string, a number or a boolean, found {shown}"
        case "string_type" if raw is not None:
            return f'expected a string, found {_read_as(value)}; write it in quotes: "{raw}"'
        case "string_type":
            return f"expected a string, found {shown}"
        case "tuple_type" | "list_type":
            return (
                f"expected a list, found {shown}; write [{value}]"
                if isinstance(value, str | int | float)
                else f"expected a list, found {shown}"
            )
        case "dict_type" | "model_type" | "model_attributes_type" if raw is not None and path[-1:] == ("shell",):
            return f'expected a string, found {_read_as(value)}; write it in quotes: "{raw}"'
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


def _is_default(path: KeyPath) -> bool:
    return path[:1] == ("variables",) and path[-1:] == ("default",)


def _explain_kind(path: KeyPath, value: Any, document: Document) -> Problem:
    if path and path[-1] == "output":
        if not isinstance(value, dict):
            return document.problem(path, f"expected a mapping, found {_shown(value)}")
        given = value.get("type")
        meant = did_you_mean(str(given), ["ebs", "instance-store"])
        return document.problem((*path, "type"), f"must be 'ebs' or 'instance-store', not {_shown(given)}{meant}")
    known = STEP_KINDS | TEST_KINDS if path[:1] == ("test",) else STEP_KINDS
    kinds = ", ".join([*known, *(name for name in installed_kinds() if name not in known)])
    if not isinstance(value, dict):
        hint = f"write {value}: …" if isinstance(value, str) and value in known else None
        return document.problem(path, f"a step is a mapping with one of {kinds}; found {_shown(value)}", hint=hint)
    kinds_given = [key for key in value if key in known]
    if kinds_given:
        return document.problem(path, f"a step has exactly one of {kinds}; this has {' and '.join(kinds_given)}")
    for key in value:
        if key in TEST_KINDS:
            message = f"{key} is a kind of test: it belongs in test, not among the steps of {_list_name(path)}"
            return document.problem((*path, key), message, key=True)
        if packers := packer.hint(str(key)):
            return document.problem((*path, key), f"unknown key '{key}'", key=True, hint=packers)
        if (close := nearest(str(key), known)) is not None:
            return document.problem((*path, key), f"unknown key '{key}'; did you mean '{close}'?", key=True)
    return document.problem(path, f"a step needs one of {kinds}; this has {', '.join(map(str, value)) or 'nothing'}")


def _list_name(path: KeyPath) -> str:
    """Return the name of the list that a step is in."""
    return "a provisioner" if path[:1] == ("steps",) else str(path[0])


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


def _walk(model: type[BaseModel], loc: tuple[str | int, ...], kind: str) -> tuple[KeyPath, frozenset[str]]:
    """Return the document's path of a pydantic location, without its union labels, and the keys known at its parent."""
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
    """Yield an annotation's alternatives, each with the tags that name it in a location."""
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
