"""Stages and the edges between them.

The standard library is enough, and networkx would add 65 ms to every command that plans a graph
(docs/explanation/dependencies.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from imagepipe.engine.stage import Ref, Stage

T = TypeVar("T")


class Graph:
    """Named stages and their edges; acyclic by construction, because a Ref exists only after its stage."""

    def __init__(self) -> None:
        self._stages: dict[str, Stage[Any]] = {}
        self._needs: dict[str, frozenset[str]] = {}
        self._inputs: dict[str, frozenset[str]] = {}
        self._feeds: dict[str, dict[str, None]] = {}

    def add(self, name: str, stage: Stage[T]) -> Ref[T]:
        """Add a stage; its Ref and After fields become edges. Raises ValueError on a taken name or an unknown input."""
        if name in self._stages:
            raise ValueError(f"two stages have the name {name!r}")
        inputs = [ref.stage for ref in stage.inputs()]
        edges = [*inputs, *(ref.stage for ref in stage.ordering())]
        for before in edges:
            if before not in self._stages:
                raise ValueError(f"stage {name!r} comes after {before!r}, which is not in the graph")
        self._stages[name] = stage
        self._needs[name] = frozenset(edges)
        self._inputs[name] = frozenset(inputs)
        self._feeds[name] = {}
        for before in edges:
            self._feeds[before][name] = None
        return Ref(name)

    @property
    def stages(self) -> Mapping[str, Stage[Any]]:
        return self._stages

    def needs(self, name: str) -> frozenset[str]:
        """Return the stages that must have ended before this one starts."""
        return self._needs[name]

    def inputs(self, name: str) -> frozenset[str]:
        """Return the stages whose outputs this one takes; they must have succeeded before it starts."""
        return self._inputs[name]

    def feeds(self, name: str) -> Iterator[str]:
        """Yield the stages that wait for this one."""
        return iter(self._feeds[name])

    def before(self, name: str) -> frozenset[str]:
        """Return every stage that is finished when this one starts."""
        found: set[str] = set()
        left = [name]
        while left:
            new = self._needs[left.pop()] - found
            found |= new
            left += new
        return frozenset(found)

    def order(self) -> list[str]:
        """Return the stages in an order that respects every edge; always the same order."""
        waits_for = {name: len(needs) for name, needs in self._needs.items()}
        ready = [name for name, count in waits_for.items() if not count]
        heapq.heapify(ready)
        found = []
        while ready:
            name = heapq.heappop(ready)
            found.append(name)
            for follower in self._feeds[name]:
                waits_for[follower] -= 1
                if not waits_for[follower]:
                    heapq.heappush(ready, follower)
        return found
