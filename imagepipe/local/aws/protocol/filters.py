"""Describe's filters and pages, the same for all kinds (EC2 user guide, "List and filter your resources")."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid
from imagepipe.local.aws.protocol.times import milliseconds

MAX_VALUES = 200  # EC2 user guide: "up to 50 filters and up to 200 values per filter in a single request"
MAX_FILTERS = 50
MAX_PAGE = 1000

Value = str | bool | int | datetime | None
Getter = Callable[[Any], Value | Iterable[Value]]


class Tagged(Protocol):
    """A record with tags."""

    @property
    def tags(self) -> Mapping[str, str]: ...


T = TypeVar("T", bound=Tagged)


class Getters(Protocol):
    """The getters of an action's filters, by the filters' names."""

    def get(self, name: str, /) -> Getter | None: ...


def by_attribute(*names: str) -> dict[str, Getter]:
    """Make getters for the filters that are named like the record's attributes, with dashes."""
    return {name: attrgetter(name.replace("-", "_")) for name in names}


def select(rows: Iterable[T], filters: Sequence[Mapping[str, Any]], getters: Getters) -> list[T]:
    """Select the rows that match all filters; a filter matches if one of its values does.

    Raises AwsError for a name that the kind does not have, and for more values than EC2 takes.
    """
    if len(filters) > MAX_FILTERS:
        raise AwsError("FilterLimitExceeded", f"The maximum number of filters is {MAX_FILTERS}")
    tests: list[Callable[[T], bool]] = []
    for item in filters:
        name, values = str(item.get("Name", "")), [str(value) for value in item.get("Values", [])]
        if not values:
            raise invalid(f"The filter '{name}' must have at least one value")
        if len(values) > MAX_VALUES:
            raise AwsError(
                "FilterLimitExceeded",
                f"The maximum number of filter values specified on a single call is {MAX_VALUES}",
            )
        tests.append(_test(name, values, getters))
    return [row for row in rows if all(test(row) for test in tests)]


def _test(name: str, values: Sequence[str], getters: Getters) -> Callable[[Tagged], bool]:
    patterns = [_pattern(value) for value in values]
    if name.startswith("tag:"):
        key = name.removeprefix("tag:")
        return lambda row: key in row.tags and _any(patterns, (row.tags[key],))
    if name == "tag-key":
        return lambda row: _any(patterns, row.tags)
    getter = getters.get(name)
    if getter is None:
        raise invalid(f"The filter '{name}' is invalid")

    def test(row: Tagged) -> bool:
        found = getter(row)
        many = (found,) if found is None or isinstance(found, str | bool | int | datetime) else tuple(found)
        return _any(patterns, (_text(value) for value in many if value is not None))

    return test


def _any(patterns: Sequence[re.Pattern[str]], found: Iterable[str]) -> bool:
    return any(pattern.fullmatch(value) for value in found for pattern in patterns)


def _text(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return milliseconds(value)
    return str(value)


@lru_cache(maxsize=1024)  # limited, because callers choose the values
def _pattern(value: str) -> re.Pattern[str]:
    """Compile a pattern: `*` is any text, `?` any one character, and a backslash quotes them."""
    parts = []
    for piece in re.findall(r"\\.|.", value, re.DOTALL):
        if piece == "*":
            parts.append(".*")
        elif piece == "?":
            parts.append(".")
        else:
            parts.append(re.escape(piece[-1]))
    return re.compile("".join(parts), re.DOTALL)


def page(
    found: Iterable[T],
    params: Mapping[str, Any],
    getters: Getters,
    *,
    least: int = 5,
    most: int = MAX_PAGE,
    ids: str | None = None,
) -> tuple[Sequence[T], str | None]:
    """Return one page of the rows that match the filters of a request, and the token for the next one.

    `least` and `most` are the smallest and the largest page; `ids` names the parameter that EC2 does not take beside
    MaxResults. The token names the last row of the page and not its position, so that no row is skipped or repeated if
    rows are created between two requests.
    """
    rows = select(found, params.get("Filters", []), getters)
    size = params.get("MaxResults")
    if size is not None:
        if ids and params.get(ids):
            raise conflicting(f"The parameter {ids} cannot be used with the parameter maxResults")
        if not least <= size <= most:
            raise invalid(
                f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value from {least} to {most}."
            )
    names = [str(getattr(row, "id", "")) for row in rows]
    start = _position(str(params["NextToken"]), names) if params.get("NextToken") else 0
    end = len(rows) if size is None else min(len(rows), start + size)
    token = base64.urlsafe_b64encode(f"after {names[end - 1]}".encode()).decode() if end < len(rows) else None
    return rows[start:end], token


def _position(token: str, names: Sequence[str]) -> int:
    try:
        word, _, name = base64.urlsafe_b64decode(token).decode().partition(" ")
    except (binascii.Error, UnicodeDecodeError):
        word, name = "", ""
    if word != "after":
        raise invalid(f"Unable to parse pagination token: {token}")
    return names.index(name) + 1 if name in names else len(names)
