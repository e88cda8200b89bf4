"""Parts of the language that `build` does not support yet. They are refused, with their position, before any launch."""

from __future__ import annotations

from collections.abc import Iterator

from imagepipe.errors import Problem
from imagepipe.spec.document import KeyPath
from imagepipe.spec.loaded import LoadedSpec
from imagepipe.spec.models import Spec


def not_yet(loaded: LoadedSpec, *, severity: str = "error") -> list[Problem]:
    """Return a problem for each part of a spec that this version cannot build."""
    if loaded.spec is None:
        return []
    return [
        loaded.document.problem(
            path,
            f"{what}: not supported yet; this version checks it but cannot build it",
            severity=severity,
        )
        for path, what in _found(loaded.spec)
    ]


def _found(spec: Spec) -> Iterator[tuple[KeyPath, str]]:
    publish = spec.publish
    if publish.ssm_parameter is not None:
        yield ("publish", "ssm_parameter"), "writing an SSM parameter"
    if publish.deprecate_after is not None:
        yield ("publish", "deprecate_after"), "deprecation"
