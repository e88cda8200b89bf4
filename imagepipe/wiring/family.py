"""The specs of a run as a graph: each is built after its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from imagepipe.engine.groups import Groups, Limit
from imagepipe.errors import Problem, SpecError
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec
from imagepipe.wiring.build import Baked


def bases_first(loaded: Sequence[LoadedSpec]) -> list[LoadedSpec]:
    """Return the specs in an order in which each follows its base; otherwise in their own order."""
    if not any(each.base_spec for each in loaded):
        return list(loaded)
    import networkx  # 65 ms, which only families pay for

    place = {str(each.key): index for index, each in enumerate(loaded)}
    graph = networkx.DiGraph()
    graph.add_nodes_from(place)
    graph.add_edges_from(
        (str(each.base_spec.key), str(each.key))
        for each in loaded
        if each.base_spec is not None and str(each.base_spec.key) in place
    )
    order = networkx.lexicographical_topological_sort(graph, key=place.__getitem__)
    return [loaded[place[key]] for key in order]


def check_bases(loaded: Sequence[LoadedSpec], region: Callable[[Spec], str]) -> None:
    """Raise SpecError for each spec whose base has no image in the region that it is launched in."""
    problems: list[Problem] = []
    for each in loaded:
        if each.base_spec is None:
            continue
        base, home = each.base_spec.checked(), region(each.checked())
        everywhere = base.publish.everywhere(region(base))
        covered = [name for name in everywhere if name == region(base) or name not in base.publish.best_effort]
        if home not in covered:
            other = each.base_spec.problem(("publish",), "")
            change = f"add {home} to publish.regions"
            if home in everywhere:
                change = f"remove {home} from publish.best_effort"
            only = "images only" if home not in everywhere else "images that must not fail only"
            problems.append(
                each.problem(
                    ("source", "image"),
                    f"'{each.key}' is launched in {home}, but '{each.base_spec.key}' has {only} in"
                    f" {', '.join(covered)}",
                    hint=f"{change} of {each.base_spec.key} ({other.file}:{other.line}), or change launch.region here",
                )
            )
    if problems:
        raise SpecError(problems)


def groups_of(baked: Sequence[Baked], loaded: Sequence[LoadedSpec], *, fail_fast: bool) -> Groups:
    """Return the groups of a run: one for each spec, which waits until its base is tested.

    Each region that may fail alone is a group of its own.
    """
    groups = {build.spec: build.stages for build in baked}
    after = {build.spec: frozenset({build.base.stage}) for build in baked if build.base is not None}
    optional: set[str] = set()
    for build in baked:
        for region, part in build.best_effort.items():
            name = f"{build.spec} in {region}"
            optional.add(name)
            groups[name], after[name] = part.stages, frozenset({part.source.stage})
            groups[build.spec] -= part.stages
    return Groups(
        groups,
        after=after,
        optional=frozenset(optional),
        limits=limits_of(loaded),
        fail_fast=fail_fast,
    )


def limits_of(loaded: Sequence[LoadedSpec]) -> tuple[Limit, ...]:
    """Return a limit for the variants of each matrix with `max_parallel`."""
    limits: dict[str, tuple[int, set[str]]] = {}
    for each in loaded:
        matrix = each.checked().matrix
        if matrix is not None and matrix.max_parallel is not None:
            limits.setdefault(each.key.name, (matrix.max_parallel, set()))[1].add(str(each.key))
    return tuple(Limit(frozenset(keys), at_once) for at_once, keys in limits.values())
