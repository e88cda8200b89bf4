"""YAML that is written is read back as the same values."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagepipe.convert.yaml_text import block_of, comment
from imagepipe.spec.document import parse
from tests.fuzzing import BOUNDED

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20) | st.text(
    " \n\t:#-'\"{}[],&*!|>%@`ay01.", max_size=20
)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(10**9), 10**9),
    lambda inner: st.lists(inner, min_size=1, max_size=4) | st.dictionaries(TEXTS, inner, min_size=1, max_size=4),
    max_leaves=15,
)


@BOUNDED
@given(value=st.dictionaries(TEXTS, VALUES, min_size=1, max_size=4))
@example(value={"a": "\n x\ny\n"})
@example(value={"a": ["  x\n", "x\n\n", "\n"]})
@example(value={"a": {"b": "1_0", "c": "1:30", "d": "0x1f", "e": "~", "f": "2026-01-02", "g": "=", "h": "<<"}})
def test_any_value_is_read_back(value: dict[str, Any]) -> None:
    documents = parse("\n".join(block_of(value, 0)) + "\n", "x.yaml")
    assert [problem.text() for problem in documents[0].problems] == []
    assert documents[0].value == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": {"b": [1, "x y"]}}, "a:\n  b: [1, x y]"),
        ({"a": "one\ntwo\n"}, "a: |\n  one\n  two"),
        ({"a": "one\ntwo"}, "a: |-\n  one\n  two"),
        ({"a": "0644", "b": "yes", "c": "{{ var.x }}"}, 'a: "0644"\nb: "yes"\nc: "{{ var.x }}"'),
    ],
)
def test_values_are_written_as_people_write_them(value: dict[str, Any], text: str) -> None:
    assert "\n".join(block_of(value, 0)) == text


def test_a_comment_is_one_printable_line() -> None:
    assert comment("a\n b\x1b[1m") == "# a b?[1m"
