"""HCL2 becomes a tree with lines, and a syntax error an error with its position."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagepipe.convert.evaluate import Evaluator, Names
from imagepipe.convert.hcl import MAX_DEPTH, parse_hcl
from imagepipe.convert.listing import Listing
from imagepipe.convert.places import Folders
from imagepipe.errors import SpecError


def _value(text: str) -> object:
    attribute = next(parse_hcl(f"a = {text}\n", "x.hcl").attributes())
    return Evaluator(Names(), Folders(Path("/x"), Path("/x")), Listing()).evaluate(attribute.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1.5e1", -15.0),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 2 - 3", 5),
        ("7 % 4 == 3 && !false", True),
        ('1 < 2 ? "a" : "b"', "a"),
        ("null", None),
        (r'"a\n\"\\\t\u00e9"', 'a\n"\\\té'),
        ('"$${x} %%{y} $ %"', "${x} %{y} $ %"),
        ('"${1 + 1}%"', "2%"),
        ('"${"a"}${"b"}"', "ab"),
        ("[1, 2,\n 3,]", [1, 2, 3]),
        ('{a = 1, "b c" : 2\n ("d") = 3}', {"a": 1, "b c": 2, "d": 3}),
        ("[1, 2][1]", 2),
        ("{a = {b = [5]}}.a.b[0]", 5),
        ("[{a = 1}, {a = 2}][*].a", [1, 2]),
        ("[{a = 1}, {a = 2}].*.a", [1, 2]),
        ("[for x in [1, 2, 3] : x * 2 if x > 1]", [4, 6]),
        ("{for k, v in {a = 1} : upper(k) => v}", {"A": 1}),
        ('{for v in ["a", "b"] : "x" => v...}', {"x": ["a", "b"]}),
        ('"%{ if true }yes%{ else }no%{ endif }"', "yes"),
        ('"%{ for x in ["a", "b"] }${x};%{ endfor }"', "a;b;"),
        ('"a ${~ "b" ~} c"', "abc"),
        ("concat([1]\n)", [1]),
        ("max([1, 5, 3]...)", 5),
        ("try(local.none, 3)", 3),
        ("can(local.none)", False),
    ],
)
def test_an_expression_has_its_value(text: str, value: object) -> None:
    assert _value(text) == value


def test_a_heredoc_keeps_its_text_and_an_indented_one_loses_the_common_indentation() -> None:
    assert _value('<<EOF\n  a "b" \\n ${1}\n c\nEOF') == '  a "b" \\n 1\n c\n'
    assert _value("<<-EOF\n    a\n      b\n\n    EOF") == "a\n  b\n\n"


def test_comments_are_skipped_and_lines_are_kept() -> None:
    body = parse_hcl('# a\n// b\n/* c\n d */ x "l" m {\n\n  y = 1 # z\n}\nw = [\n1]\n', "x.hcl")
    block = next(body.blocks())
    assert (block.at.line, block.type, block.labels) == (4, "x", ("l", "m"))
    assert [each.at.line for each in block.body.attributes()] == [6]
    assert [each.at.line for each in body.attributes()] == [8]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ('a = "x', "1:5", "no closing quote"),
        ("a = 1\nb {\n  c = 2\n", "4:1", "the block of line 2 has no }"),
        ("a = [1, 2\nb = 3\n", "2:1", "']' is expected here"),
        ("a = 1 b = 2\n", "1:7", "the end of the line is expected here"),
        ("a = <<EOF\nx\n", "1:5", "no line EOF ends this text"),
        ("a =\n", "1:4", "a value is expected here, not the end of the line"),
        ("a = 1\na = 2\n", "2:6", "attribute 'a' is set twice"),
        ('a = "${1"\n', "1:9", "'}' is expected"),
        ('a = "\\q"\n', "1:6", "unknown escape"),
        ('a = "\\ud800"\n', "1:6", "is not a character"),
        ('a = "%{ if true }"\n', "1:19", "%{ endif } is missing"),
        ("}\n", "1:1", "an attribute or a block is expected"),
        ("a = " + "(" * 200 + "\n", f"1:{MAX_DEPTH + 4}", "nested deeper"),
    ],
    ids=lambda each: each[:20],
)
def test_a_syntax_error_has_its_position(text: str, place: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_hcl(text, "x.hcl")
    assert message in caught.value.problems[0].message
    assert caught.value.problems[0].location() == f"x.hcl:{place}"
