"""The variants of a spec: every combination of its matrix's axes, without `exclude`, with `include`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from itertools import product
from math import prod
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem
from imagepipe.spec.document import Document, KeyPath
from imagepipe.spec.explain import did_you_mean
from imagepipe.spec.keys import AXIS, VALUE, axis_text, key_of
from imagepipe.spec.models import Scalar

MAX_VARIANTS = 256
"""Largest number of variants. One run holds a graph of all of them, and a list of more is usually a mistake."""
MAX_VARIANT_TEXT = 256
"""Longest text of a variant, because it is the value of a tag (EC2 user guide, "Tag restrictions")."""
OPTIONS = frozenset({"include", "exclude", "max_parallel"})
"""Keys of a matrix that are not axes."""

Variant = Mapping[str, Scalar]
_Finding = tuple[KeyPath, str]


@dataclass(slots=True)
class Expanded:
    """The variants of a document."""

    variants: tuple[Variant, ...]
    """The values by axis of each variant; one empty variant for a spec without a matrix."""
    problems: list[Problem] = field(default_factory=list)


def expand_matrix(document: Document) -> Expanded:
    """Return the variants of a document, or one stand-in variant with the problems of its matrix.

    A matrix that is not a mapping is left to the model, which reports it.
    """
    raw = document.value.get("matrix") if isinstance(document.value, dict) else None
    if not isinstance(raw, dict):
        return Expanded(({},))
    axes = {str(name): value for name, value in raw.items() if name not in OPTIONS}
    findings = list(_axes_findings(axes))
    findings += _rows_findings(raw, axes)
    if findings:
        return Expanded((_stand_in(axes),), [document.problem(path, text) for path, text in findings])
    count = prod(len(values) for values in axes.values())
    if count > 100 * MAX_VARIANTS:  # the product is too long even to be thinned out by `exclude`
        return Expanded((_stand_in(axes),), [document.problem(("matrix",), _too_many(count), key=True)])
    return _combined(document, raw, axes)


def _combined(document: Document, raw: Mapping[str, Any], axes: Mapping[str, list[Scalar]]) -> Expanded:
    """Combine the axes, take out `exclude` and add `include`."""
    excluded: list[Variant] = raw.get("exclude") or []
    combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())] if axes else []
    variants = [each for each in combinations if not any(row.items() <= each.items() for row in excluded)]
    problems = [
        document.problem(("matrix", "exclude", index), "no combination of the axes has these values")
        for index, row in enumerate(excluded)
        if not any(row.items() <= each.items() for each in combinations)
    ]
    for index, row in enumerate(raw.get("include") or []):
        variant = {axis: row[axis] for axis in axes}
        if variant in variants:
            problems.append(document.problem(("matrix", "include", index), "the matrix has this variant already"))
        variants.append(variant)
    if not variants:
        text = "the matrix has no variants: `exclude` takes out every combination"
        problems.append(document.problem(("matrix",), text, key=True))
    elif len(variants) > MAX_VARIANTS:
        problems.append(document.problem(("matrix",), _too_many(len(variants)), key=True))
    elif long := next((v for v in variants if len(key_of("", v).variant) > MAX_VARIANT_TEXT), None):
        text = f"the variant {key_of('', long).variant[:60]}… has more than {MAX_VARIANT_TEXT} characters"
        problems.append(document.problem(("matrix",), text, key=True))
    return Expanded((_stand_in(axes),), problems) if problems else Expanded(tuple(variants))


def _too_many(count: int) -> str:
    return f"the matrix has {count} variants; at most {MAX_VARIANTS} are supported. Split it into several specs"


def _axes_findings(axes: Mapping[str, Any]) -> Iterator[_Finding]:
    """Report axes with bad names or values."""
    if not axes:
        yield ("matrix",), "the matrix has no axes: write for example `release: [bookworm, trixie]`"
    for name, values in axes.items():
        at: KeyPath = ("matrix", name)
        if not re.fullmatch(AXIS, name):
            yield at, "the name of an axis has letters, digits and underscores"
        if not isinstance(values, list):
            yield at, "an axis is a list of values: [bookworm, trixie]"
            continue
        if not values:
            yield at, "the axis has no values, so the matrix has no variants"
        texts: set[str] = set()
        for index, value in enumerate(values):
            if problem := _value_problem(value):
                yield (*at, index), problem
            elif axis_text(value) in texts:
                yield (*at, index), f"the axis has the value {axis_text(value)} twice"
            else:
                texts.add(axis_text(value))


def _value_problem(value: Any) -> str | None:
    if not isinstance(value, str | int | float | bool):
        return "a value of an axis is a string, a number or a boolean"
    if not re.fullmatch(VALUE, axis_text(value)):
        return "a value of an axis is part of the spec's key: letters, digits, dots, dashes, plus signs, underscores"
    return None


def _rows_findings(raw: Mapping[str, Any], axes: Mapping[str, Any]) -> Iterator[_Finding]:
    """Report rows of `include` and `exclude` that name no axis, or not all of them."""
    for option in ("include", "exclude"):
        rows = raw.get(option)
        if rows is None or not isinstance(rows, list):
            continue  # the model reports a wrong type
        for index, row in enumerate(rows):
            at: KeyPath = ("matrix", option, index)
            if not isinstance(row, dict) or not row:
                yield at, "write a mapping of axes to values: {release: trixie}"
                continue
            for name, value in row.items():
                if name not in axes:
                    yield (*at, name), f"the matrix has no axis '{name}'{did_you_mean(str(name), axes)}"
                elif problem := _value_problem(value):
                    yield (*at, name), problem
            if option == "include" and (lacking := [name for name in axes if name not in row]):
                yield at, f"a variant in `include` needs a value for every axis; it lacks {', '.join(lacking)}"


def _stand_in(axes: Mapping[str, Any]) -> Variant:
    """Return the first value of each axis, so that the rest of a spec with a wrong matrix is checked too."""
    firsts = {name: values[0] if isinstance(values, list) and values else "unknown" for name, values in axes.items()}
    return {name: value if isinstance(value, str | int | float | bool) else "unknown" for name, value in firsts.items()}
