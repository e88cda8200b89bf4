"""YAML to plain values: positions, and what is refused before a model sees it."""

from __future__ import annotations

import pytest

from imagepipe.spec.document import MAX_BYTES, MAX_DEPTH, Document, parse


def only(text: str) -> Document:
    (document,) = parse(text, "x.yaml")
    return document


def said(text: str) -> list[str]:
    return [problem.message for document in parse(text, "x.yaml") for problem in document.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1),
        ("a: -1", -1),
        ("a: +12", 12),
        ("a: 1_000", 1000),
        ("a: 0644", 420),
        ("a: 0b11", 3),
        ("a: 0x1F", 31),
        ("a: 12:30", 750),
        ("a: 1.5", 1.5),
        ("a: -1.5", -1.5),
        ("a: .5", 0.5),
        ("a: 1:30.5", 90.5),
        ("a: yes", True),
        ("a: OFF", False),
        ("a: ~", None),
        ("a:", None),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: '1'", "1"),
        ('a: "yes"', "yes"),
        ("a: !!str 5", "5"),
        ("a: !!int abc", "abc"),
        ("a: !!bool perhaps", "perhaps"),
        ("a: 0x_", "0x_"),
        ("a: " + "9" * 5000, "9" * 5000),
        ("a: 1" + ":59" * 400, "1" + ":59" * 400),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_scalar_is_read_as_yaml_1_1_reads_it(text: str, value: object) -> None:
    found = only(text).value["a"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_texts_even_where_yaml_reads_booleans() -> None:
    assert only("on: 1\nno: 2\n5: 3\n").value == {"on": 1, "no": 2, "5": 3}


def test_positions_count_from_one_and_in_characters() -> None:
    document = only("a: é\nb:\n  - x\n  - {c: yy}\n")
    mark = document.mark(("b", 1, "c"))
    assert (mark.line, mark.column, mark.length) == (4, 9, 2)
    key = document.mark(("b",), key=True)
    assert (key.line, key.column, key.length) == (2, 1, 1)


def test_a_value_without_a_position_has_that_of_the_value_around_it() -> None:
    assert only("a: {b: 1}\n").mark(("a", "none", "at", "all")).column == 4


@pytest.mark.parametrize("end", ["\r\n", "\r", "\x85", "\u2028"], ids=["crlf", "cr", "nel", "ls"])
def test_lines_are_counted_as_the_parser_counts_them(end: str) -> None:
    (problem,) = only(f"a: 1{end}b: 2{end}a: 3{end}").problems
    assert (problem.line, problem.column, problem.excerpt) == (3, 1, "a: 3")


def test_a_merge_key_adds_the_keys_that_the_mapping_lacks() -> None:
    document = only("base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\nit: {<<: [*b, *o], x: 0}\n")
    assert document.value["it"] == {"x": 0, "y": 2, "z": 4}
    assert document.problems == []


def test_the_first_of_two_equal_keys_counts() -> None:
    document = only("a: 1\na: 2\n")
    assert document.value == {"a": 1}
    assert said("a: 1\na: 2\n") == ["duplicate key 'a'; it is already in line 1"]


def test_an_alias_may_be_used_often_within_reason() -> None:
    assert only("a: &a [1, 2]\nb: [*a, *a, *a]\n").value["b"] == [[1, 2]] * 3


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOMB, "more than 100,000 values, aliases expanded"),
        (BOMB.replace("[", "{<<: [").replace("]", "]}"), "'<<' takes mappings only"),
        ("a: &a [*a]", "an alias contains itself"),
        ("a: &a {b: {c: *a}}", "an alias contains itself"),
        ("a: &a {<<: *a}", "'<<' takes mappings only"),
        ("[" * 200_000, f"nested deeper than {MAX_DEPTH} levels"),
        ("- " * 200_000 + "a", f"nested deeper than {MAX_DEPTH} levels"),
        ("? " * 200_000 + "a", f"nested deeper than {MAX_DEPTH} levels"),
        ("\n".join(" " * depth + "a:" for depth in range(1200)), f"nested deeper than {MAX_DEPTH} levels"),
        ("[" * 70 + "]" * 70, f"nested deeper than {MAX_DEPTH} levels"),
        ("a: " + "x" * MAX_BYTES, "the file is larger than 4 MiB"),
        ("a: b\x00", "character '\\x00' is not allowed in YAML"),
        ("a: \x1b[31m", "character '\\x1b' is not allowed in YAML"),
        ("a: !!python/name:os.system x", "tag 'tag:yaml.org,2002:python/name:os.system' is not part of this language"),
        ("a: !secret b", "tag '!secret' is not part of this language"),
        ("a: !!binary aGk=", "tag 'tag:yaml.org,2002:binary' is not part of this language"),
        ("a: {{ var.x }}", 'a value that starts with a brace must be quoted: "{{ var.x }}"'),
        ("[a, b]: c", "a key must be a string"),
    ],
    ids=lambda value: value[:24].encode("unicode_escape").decode(),
)
def test_a_document_beyond_the_limits_is_refused(text: str, expected: str) -> None:
    assert expected in said(text)


def test_a_character_that_is_not_allowed_is_found_in_its_place() -> None:
    (problem,) = only("a: 1\nb: x\x07y\n").problems
    assert (problem.line, problem.column) == (2, 5)


def test_documents_before_a_mistake_are_there() -> None:
    first, second = parse("a: 1\n---\nb: [\n", "x.yaml")
    assert first.value == {"a": 1}
    assert second.problems[0].message.startswith("not YAML: ")


def test_a_long_line_is_not_shown_whole() -> None:
    (problem,) = only("a: [" + "x, " * 1000 + "{[b]: c}]").problems
    assert problem.excerpt == ""
    assert problem.column > 3000
    (near,) = only("a: {[b]: " + "x" * 1000 + "}").problems
    assert len(near.excerpt) == 500
