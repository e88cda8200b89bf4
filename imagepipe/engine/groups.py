"""Groups of stages that succeed or fail on their own, such as the stages of one spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from imagepipe.dataclass import dataclass
from imagepipe.engine.graph import Graph


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit on the groups that run at once."""

    groups: frozenset[str]
    at_once: int


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a graph. A failure stops and undoes its own group, and the groups that depend on it."""

    stages: Mapping[str, frozenset[str]]
    """Stages by group."""
    after: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Stages of other groups that must be done before any stage of a group starts."""
    limits: tuple[Limit, ...] = ()
    optional: frozenset[str] = frozenset()
    """Groups that may fail alone: they are undone, and the run succeeds without them. No other group depends on one."""
    fail_fast: bool = False
    """True if a failure stops and undoes every group that is not finished."""

    @classmethod
    def one(cls, graph: Graph) -> Groups:
        """Return a single group of all stages."""
        return cls({"": frozenset(graph.stages)})

    def by_stage(self) -> dict[str, str]:
        """Return the group of each stage."""
        return {stage: group for group, stages in self.stages.items() for stage in stages}

    def dependents(self, group: str) -> frozenset[str]:
        """Return the groups that depend on this one, directly or through others."""
        group_of = self.by_stage()
        found = {group}
        grown = True
        while grown:
            more = {name for name, stages in self.after.items() if {group_of[stage] for stage in stages} & found}
            grown = not more <= found
            found |= more
        return frozenset(found - {group})
