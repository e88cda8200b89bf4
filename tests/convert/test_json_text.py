"""JSON becomes the same tree as HCL2, with lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagepipe.convert.json_text import parse_json
from imagepipe.convert.syntax import Expression, ListOf, Literal, ObjectOf
from imagepipe.errors import SpecError
from tests.fuzzing import BOUNDED

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def _plain(value: Expression) -> object:
    if isinstance(value, ListOf):
        return [_plain(item) for item in value.items]
    if isinstance(value, ObjectOf):
        return {key.value: _plain(item) for key, item in value.items if isinstance(key, Literal)}
    assert isinstance(value, Literal)
    return value.value


@BOUNDED
@given(value=VALUES, indent=st.sampled_from([None, 1, "\t"]))
def test_any_json_has_the_value_that_python_reads(value: object, indent: int | str | None) -> None:
    assert _plain(parse_json(json.dumps(value, indent=indent), "x.json")) == value


def test_every_value_knows_its_line() -> None:
    value = parse_json('{\n"a": [\n1,\n{"b": 2}\n]}', "x.json")
    assert isinstance(value, ObjectOf)
    items = value.items[0][1]
    assert isinstance(items, ListOf)
    assert [item.at.line for item in items.items] == [3, 4]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("{", "1:2", "the file ends too early"),
        ('{"a" 1}', "1:6", "a colon is expected"),
        ('{"a": 1\n "b": 2}', "2:2", "a comma or } is expected"),
        ("{a: 1}", "1:2", "a key in double quotes"),
        ("[1] 2", "1:5", "the file continues"),
        ('["\\ud800"]', "1:10", "surrogate"),
        ('["a', "1:2", "unterminated string"),
        ("[" * 100, "1:62", "nested deeper"),
    ],
    ids=lambda each: each[:20],
)
def test_a_syntax_error_has_its_position(text: str, place: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_json(text, "x.json")
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].location().startswith(f"x.json:{place}")
