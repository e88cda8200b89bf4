"""A loaded spec: the model, its steps, and its problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagepipe.errors import Problem
from imagepipe.spec.document import Document
from imagepipe.spec.keys import SpecKey, key_of
from imagepipe.spec.models import Project, Scalar, Spec
from imagepipe.spec.steps import StepAt


@dataclass(slots=True, eq=False)
class LoadedSpec:
    """A spec, with its file, document, project and problems."""

    file: Path
    document: Document
    spec: Spec | None = None
    """The model; None if the spec has errors."""
    project: Project = field(default_factory=Project)
    axes: Mapping[str, Scalar] = field(default_factory=dict)
    """Value of each axis, for a variant of a matrix."""
    is_named: bool = True
    """False for a base that was found because another spec is built on it."""
    base_spec: LoadedSpec | None = None
    """The spec that this one is built on, among those loaded with it."""
    has_unknown_base: bool = False
    """True if `source.image` is made of a variable that has no value yet."""
    names: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unset: tuple[str, ...] = ()
    """Required variables that have no value, if the spec was loaded without a build."""
    """Values of `var`, `matrix`, `spec` and `build`."""
    steps: tuple[StepAt, ...] = ()
    """Steps of `provision`, with the steps of provisioners in place."""
    tests: tuple[StepAt, ...] = ()
    problems: list[Problem] = field(default_factory=list)
    secrets: frozenset[str] = frozenset()
    """Values that are masked in all output."""
    reference: LoadedSpec | None = None
    """The spec with placeholders for `build.*` and for sensitive variables, from which fingerprints are made.

    None if the spec was not loaded for a build, or cannot be loaded with placeholders."""

    def problem(self, path: tuple[str | int, ...], message: str, *, hint: str | None = None) -> Problem:
        """Return a problem at a path of this spec."""
        return self.document.problem(path, message, hint=hint)

    @property
    def key(self) -> SpecKey:
        """The spec's name and variant; the name is `spec` if the document has none."""
        name = self.document.value.get("name") if isinstance(self.document.value, dict) else None
        return key_of(name if isinstance(name, str) else "spec", self.axes)

    @property
    def base(self) -> str | None:
        """The spec that this one is built on, as `source.image` names it; None if it names none, or is unreadable."""
        if self.has_unknown_base:
            return None
        if self.spec is not None:
            return self.spec.source.image
        value = self.document.value
        source = value.get("source") if isinstance(value, dict) else None
        image = source.get("image") if isinstance(source, dict) else None
        return image if isinstance(image, str) and "{{" not in image else None

    def bases(self) -> list[LoadedSpec]:
        """Return the base of this spec, the base of that, and so on; each once, if they form a cycle."""
        found: list[LoadedSpec] = []
        base = self.base_spec
        while base is not None and base not in found:
            found.append(base)
            base = base.base_spec
        return found

    def checked(self) -> Spec:
        """Return the model. Only for specs without errors."""
        assert self.spec is not None, f"{self.file} has problems"
        return self.spec
