"""A loaded spec: the model, its steps, and its problems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagepipe.errors import Problem
from imagepipe.spec.document import Document
from imagepipe.spec.models import Project, Spec
from imagepipe.spec.steps import StepAt


@dataclass(slots=True)
class LoadedSpec:
    """A spec, with its file, document, project and problems."""

    file: Path
    document: Document
    spec: Spec | None = None
    """The model; None if the spec has errors."""
    project: Project = field(default_factory=Project)
    names: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values of `var`, `spec` and `build`."""
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

    def checked(self) -> Spec:
        """Return the model. Only for specs without errors."""
        assert self.spec is not None, f"{self.file} has problems"
        return self.spec
