"""Choose among loaded specs: the variants that the command line names, `--only`, and `--with-dependents`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from imagepipe.errors import UsageError
from imagepipe.spec.explain import did_you_mean
from imagepipe.spec.keys import SpecKey, parse_key
from imagepipe.spec.loaded import LoadedSpec


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
