"""Stages and the edges between them. The one place that imports networkx."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import networkx as nx

from imagepipe.engine.stage import Ref, Stage

T = TypeVar("T")


class Graph:
    """Named stages and their edges; acyclic by construction, as a Ref exists only once its stage does."""

    def __init__(self) -> None:
        self._nodes: nx.DiGraph[str] = nx.DiGraph()
        self._stages: dict[str, Stage[Any]] = {}

    def add(self, name: str, stage: Stage[T]) -> Ref[T]:
        """Add a stage; its Ref fields become edges. Raises ValueError on a taken name or an unknown input."""
        if name in self._stages:
            raise ValueError(f"two stages have the name {name!r}")
        for ref in stage.inputs():
            if ref.stage not in self._stages:
                raise ValueError(f"stage {name!r} takes the output of {ref.stage!r}, which is not in the graph")
        self._stages[name] = stage
        self._nodes.add_node(name)
        self._nodes.add_edges_from((ref.stage, name) for ref in stage.inputs())
        return Ref(name)

    @property
    def stages(self) -> Mapping[str, Stage[Any]]:
        return self._stages

    def needs(self, name: str) -> frozenset[str]:
        """The stages whose outputs this one takes."""
        return frozenset(self._nodes.predecessors(name))

    def feeds(self, name: str) -> Iterator[str]:
        """The stages that take this one's output."""
        return iter(self._nodes.successors(name))

    def before(self, name: str) -> frozenset[str]:
        """Every stage that is finished when this one starts."""
        return frozenset(nx.ancestors(self._nodes, name))

    def order(self) -> list[str]:
        """The stages in an order that respects every edge; always the same one."""
        return list(nx.lexicographical_topological_sort(self._nodes))
