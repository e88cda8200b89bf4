"""A provisioner as its users see it: purpose, parameters, steps, and an example of its use."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem
from imagepipe.spec.document import Document
from imagepipe.spec.explain import explain
from imagepipe.spec.find import is_shipped
from imagepipe.spec.load import SAMPLE_BUILD
from imagepipe.spec.models import Parameter, Provisioner
from imagepipe.spec.rendering import Scope, render_document
from imagepipe.spec.step_models import STEP_KINDS
from imagepipe.spec.steps import EMPTY, declared_parameters, read_provisioner, shown_path
from imagepipe.step_kinds import installed_kinds

_SAMPLES: dict[str, str] = {
    "string": "value",
    "integer": "1",
    "number": "1.5",
    "boolean": "true",
    "list": "[value]",
    "mapping": "{key: value}",
}
"""Values for the example of a required parameter, by its type."""


@dataclass(frozen=True, slots=True)
class StepSummary:
    """A step of a provisioner."""

    kind: str
    name: str
    """Its `name`, or the text that tells it from others."""


@dataclass(frozen=True, slots=True)
class ProvisionerSummary:
    """A provisioner, with the problems of its file."""

    name: str
    folder: Path
    description: str
    parameters: Mapping[str, Parameter]
    steps: tuple[StepSummary, ...]
    problems: tuple[Problem, ...]

    @property
    def is_shipped(self) -> bool:
        """True if imagepipe ships it."""
        return is_shipped(self.folder)

    def example(self) -> str:
        """Return steps of a spec that use it: required parameters with sample values, the others in comments."""
        lines = ["provision:", f"  - use: {self.name}"]
        values = [*self._values()]
        if values:
            is_optional = all(line.startswith("#") for line in values)
            lines += [f"    {'# ' if is_optional else ''}with:", *(f"      {line}" for line in values)]
        return "\n".join(lines) + "\n"

    def _values(self) -> Iterator[str]:
        for name, parameter in self.parameters.items():
            if parameter.required:
                yield f"{name}: {_SAMPLES[parameter.type]}"
            else:
                yield f"# {name}: {default_of(parameter) or _SAMPLES[parameter.type]}"


def default_of(parameter: Parameter) -> str:
    """Return the value of a parameter that a step does not set, as one line of YAML; empty if it has none."""
    value = EMPTY.get(parameter.type) if parameter.default is None else parameter.default
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def summarize(name: str, folder: Path) -> ProvisionerSummary:
    """Read a provisioner. Its problems are those that a spec which uses it would report."""
    file = folder / "provisioner.yaml"
    document = read_provisioner(file, shown_path(file))
    if document.problems or not isinstance(document.value, dict):
        message = "a provisioner must be a mapping with description and steps"
        return ProvisionerSummary(name, folder, "", {}, (), tuple(document.problems or [document.problem((), message)]))
    parameters, problems = declared_parameters(document)
    values = {key: each.default for key, each in parameters.items() if each.default is not None}
    scope = Scope(
        known={"param": values, "spec": {"name": "spec"}, "build": SAMPLE_BUILD.names()},
        declared=frozenset(parameters),
        sensitive=frozenset(),
        root="param",
    )
    rendered = render_document(document, scope, skip=frozenset({"parameters"}))
    problems += rendered.problems
    try:
        Provisioner.model_validate(rendered.value)
    except ValidationError as error:
        unknown = {".".join(map(str, path)) for path in rendered.unknown}
        problems += [each for each in explain(error, document, Provisioner) if each.path not in unknown]
    description = document.value.get("description")
    return ProvisionerSummary(
        name,
        folder,
        " ".join(description.split()) if isinstance(description, str) else "",
        parameters,
        tuple(_steps(document)),
        tuple(dict.fromkeys(problems)),
    )


def _steps(document: Document) -> Iterator[StepSummary]:
    steps = document.value.get("steps")
    for step in steps if isinstance(steps, list) else ():
        if isinstance(step, dict) and (kind := _kind(step)):
            yield StepSummary(kind, str(step.get("name") or _text(step[kind])))


def _kind(step: Mapping[str, Any]) -> str | None:
    """Return the key that says what a step does; None if it has none that is known."""
    ours = (key for key in step if key in STEP_KINDS)
    return next(ours, None) or next((key for key in step if key in installed_kinds()), None)


def _text(value: Any) -> str:
    """Return a step's own text: its script's first line, its files, its playbook, or the provisioner that it uses."""
    if isinstance(value, dict) and "src" in value:
        return f"{value['src']} -> {value.get('dest')}"
    if isinstance(value, dict):
        value = value.get("script") or value.get("inline") or value.get("playbook") or ""
    if isinstance(value, list):
        value = value[0] if value else ""
    return next((line.strip() for line in str(value).splitlines() if line.strip()), "")
