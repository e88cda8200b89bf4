"""The writer of EC2's answers: the same XML as xmltodict's, which moto uses."""

from __future__ import annotations

from typing import Any

import pytest
import xmltodict  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from imagepipe.local.aws.protocol.query import xml_of

NAMES = st.from_regex(r"[a-z][A-Za-z]{0,6}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=8)
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner.filter(lambda item: not isinstance(item, list)), max_size=3)
        | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_every_body_is_written_as_xmltodict_writes_it(body: dict[str, Any]) -> None:
    whole = {"RunInstancesResponse": {"@xmlns": "http://ec2.amazonaws.com/doc/2016-11-15/", **body, "requestId": "r"}}
    assert xml_of(whole) == xmltodict.unparse(whole, full_document=True, short_empty_elements=True)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a<b>&c", "<a>a&lt;b&gt;&amp;c</a>"),
        ("", "<a/>"),
        (None, "<a/>"),
        ({}, "<a/>"),
        ([], ""),
        (True, "<a>true</a>"),
        (8, "<a>8</a>"),
        ({"item": ["x", "y"]}, "<a><item>x</item><item>y</item></a>"),
        ({"@xmlns": 'q"uote'}, "<a xmlns='q\"uote'/>"),
    ],
)
def test_values(value: Any, written: str) -> None:
    assert xml_of({"a": value}).partition("\n")[2] == written
