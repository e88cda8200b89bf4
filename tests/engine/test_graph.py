from __future__ import annotations

from typing import Any

import pytest

from imagepipe.engine.graph import Graph
from imagepipe.engine.stage import Ref
from tests.engine.rig import Do


def _nothing(ctx: object) -> None:
    return None


def test_the_edges_are_the_fields() -> None:
    graph = Graph()
    a = graph.add("a", Do(_nothing))
    b = graph.add("b", Do(_nothing, (a,)))
    graph.add("c", Do(_nothing, (a, b)))
    assert graph.needs("c") == {"a", "b"}
    assert graph.before("c") == {"a", "b"}
    assert list(graph.feeds("a")) == ["b", "c"]


def test_the_order_is_always_the_same_and_respects_every_edge() -> None:
    def made() -> list[str]:
        graph = Graph()
        last = graph.add("z", Do(_nothing))
        graph.add("b", Do(_nothing, (last,)))
        graph.add("a", Do(_nothing))
        return graph.order()

    assert made() == made() == ["a", "z", "b"]


def test_a_name_stands_once() -> None:
    graph = Graph()
    graph.add("a", Do(_nothing))
    with pytest.raises(ValueError, match="two stages have the name 'a'"):
        graph.add("a", Do(_nothing))


def test_an_input_of_another_graph_is_refused() -> None:
    strange: Ref[Any] = Ref("elsewhere")
    with pytest.raises(ValueError, match="'elsewhere', which is not in the graph"):
        Graph().add("a", Do(_nothing, (strange,)))
