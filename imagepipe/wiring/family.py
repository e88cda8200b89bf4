"""The specs of a run as a graph: each is built after its base."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from imagepipe.engine.groups import Groups, Limit
from imagepipe.errors import Problem, SpecError, UsageError
from imagepipe.spec.explain import did_you_mean
from imagepipe.spec.keys import SpecKey, parse_key
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


def narrow(loaded: Sequence[LoadedSpec], only: Sequence[str], *, with_dependents: bool) -> list[LoadedSpec]:
    """Return the specs to build: those that `only` names, or all that are named, and their bases.

    With `with_dependents`, also every spec that is built on them. Sets `is_named` on each: a base that is only needed
    by others is not named. Raises UsageError for a name that no spec has.
    """
    if not only and not with_dependents:
        return list(loaded)
    chosen = _chosen(loaded, only) if only else [each for each in loaded if each.is_named]
    wanted = {str(each.key) for each in chosen}
    if with_dependents:
        wanted |= {str(each.key) for each in loaded if wanted & {str(base.key) for base in each.bases()}}
    for each in loaded:
        each.is_named = str(each.key) in wanted
    return _needed(loaded)


def _needed(loaded: Sequence[LoadedSpec]) -> list[LoadedSpec]:
    """Return the specs that are named, and their bases."""
    needed = {str(base.key) for each in loaded if each.is_named for base in (each, *each.bases())}
    return [each for each in loaded if str(each.key) in needed]


def _chosen(loaded: Sequence[LoadedSpec], only: Sequence[str]) -> list[LoadedSpec]:
    found: list[LoadedSpec] = []
    for word in only:
        key = parse_key(word)
        matching = [each for each in loaded if key is not None and key.covers(each.key)]
        if not matching:
            keys = [str(each.key) for each in loaded]
            listed = ", ".join(keys[:8]) + (", …" if len(keys) > 8 else "")
            raise UsageError(f"--only {word}: no spec has this name{did_you_mean(word, keys)}", hint=f"specs: {listed}")
        found += matching
    return found


def select_variants(loaded: Sequence[LoadedSpec], selections: Iterable[tuple[str, SpecKey]]) -> list[LoadedSpec]:
    """Return the specs without the variants that the command line leaves out.

    Each selection is a file, resolved, and a key whose name is empty: `web.yaml[release=bookworm]`. A file without a
    selection keeps all of its variants. A variant that is needed as a base stays. Raises UsageError for a variant that
    does not exist.
    """
    by_file: dict[str, list[SpecKey]] = {}
    for file, key in selections:
        by_file.setdefault(file, []).append(key)
    if not by_file:
        return list(loaded)
    for file, keys in by_file.items():
        own = [each for each in loaded if str(each.file.resolve()) == file]
        for key in keys:
            if not any(set(key.axes) <= set(each.key.axes) for each in own):
                listed = ", ".join(str(each.key) for each in own[:8]) + (", …" if len(own) > 8 else "")
                raise UsageError(f"[{key.variant}]: {own[0].file if own else file} has no such variant", hint=listed)
        for each in own:
            each.is_named = each.is_named and any(set(key.axes) <= set(each.key.axes) for key in keys)
    return _needed(loaded)


def groups_of(baked: Sequence[Baked], loaded: Sequence[LoadedSpec], *, fail_fast: bool) -> Groups:
    """Return the groups of a run: one for each spec, which waits until its base is tested.

    Each region that may fail alone is a group of its own.
    """
    limits: dict[str, tuple[int, set[str]]] = {}
    for each in loaded:
        matrix = each.checked().matrix
        if matrix is not None and matrix.max_parallel is not None:
            limits.setdefault(each.key.name, (matrix.max_parallel, set()))[1].add(str(each.key))
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
        limits=tuple(Limit(frozenset(keys), at_once) for at_once, keys in limits.values()),
        fail_fast=fail_fast,
    )
