"""Drawings of graphs: every format has every node, and the critical path is marked."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from imagepipe.report.drawing import CRITICAL_COLOUR, Drawing, Node

FAMILY = Drawing(
    {
        "base": Node("base", 10.0),
        "slow": Node('slow "<&', 30.0),
        "fast": Node("fast", 5.0),
        "top": Node("top", 1.0, "unchanged"),
        "new": Node("new"),
    },
    {"slow": ["base"], "fast": ["base"], "top": ["slow", "fast", "base"], "new": ["base"]},
)


def test_the_critical_path_is_the_longest_chain() -> None:
    assert FAMILY.critical_path == ["base", "slow", "top"]


def test_without_durations_nothing_is_critical() -> None:
    assert Drawing({"a": Node("a"), "b": Node("b")}, {"b": ["a"]}).critical_path == []


def test_an_edge_that_others_imply_is_left_out() -> None:
    assert FAMILY.needs_of("top") == ["slow", "fast"]


def test_the_text_names_durations_and_the_critical_path() -> None:
    assert [line.split() for line in FAMILY.draw("text").splitlines()] == [
        ["*", "base", "10.0", "s"],
        ["*", "slow", '"<&', "30.0", "s", "after", "base"],
        ["fast", "5.0", "s", "after", "base"],
        ["*", "top", "1.0", "s,", "unchanged", "after", "slow", '"<&,', "fast"],
        ["new", "after", "base"],
        [],
        ["*", "critical", "path:", "41.0", "s"],
    ]


def test_mermaid_has_every_edge_and_escapes_labels() -> None:
    drawn = FAMILY.draw("mermaid")
    assert drawn.startswith("flowchart LR\n")
    assert 'n1["slow &quot;&lt;&amp;<br/>30.0 s"]' in drawn
    assert [line.strip() for line in drawn.splitlines() if "-->" in line] == [
        "n0 --> n1",
        "n0 --> n2",
        "n1 --> n3",
        "n2 --> n3",
        "n0 --> n4",
    ]
    assert "class n0,n1,n3 critical" in drawn


def test_dot_quotes_labels_and_colours_the_critical_path() -> None:
    drawn = FAMILY.draw("dot")
    assert 'n1 [label="slow \\"<&\\n30.0 s", color=' in drawn
    assert f'n0 -> n1 [color="{CRITICAL_COLOUR}"]' in drawn
    assert "n0 -> n2\n" in drawn


def test_the_svg_is_well_formed_and_no_box_covers_another() -> None:
    root = ElementTree.fromstring(FAMILY.draw("svg"))
    boxes = [each.attrib for each in root.iter("{http://www.w3.org/2000/svg}rect") if "rx" in each.attrib]
    assert len(boxes) == 5
    assert len({(box["x"], box["y"]) for box in boxes}) == 5
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert 'slow "<&' in titles


@pytest.mark.parametrize("format", ["text", "mermaid", "dot", "svg"])
def test_an_empty_graph_can_be_drawn(format: str) -> None:
    assert Drawing({}).draw(format) is not None  # type: ignore[arg-type]
