"""The steps of a spec with provisioners expanded, each with the folder and scope that it was written in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from imagepipe import render
from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem
from imagepipe.late import Late
from imagepipe.spec import document as yaml_document
from imagepipe.spec.base import CommonOptions
from imagepipe.spec.document import Document, KeyPath
from imagepipe.spec.explain import LATE_HERE, did_you_mean, explain, value_at
from imagepipe.spec.find import broken_provisioner, provisioner_folder, provisioner_names
from imagepipe.spec.models import Parameter, Provisioner
from imagepipe.spec.rendering import Scope, names_late, render_document
from imagepipe.spec.step_checks import check_step
from imagepipe.spec.step_models import (
    AnsibleStep,
    CustomStep,
    FileStep,
    PlainStep,
    RebootStep,
    ShellStep,
    StepOptions,
    TemplateStep,
    UseStep,
)
from imagepipe.spec.tests import (
    CommandTest,
    HttpTest,
    PackageTest,
    PathTest,
    PlainTest,
    PortTest,
    ServiceTest,
)
from imagepipe.spec.variables import as_number

MAX_DEPTH = 10
"""Depth of provisioners that use provisioners."""

_NO_UPLOAD_ENDS = "an upload does not end the connection: if it breaks, the upload has failed"
_DISCONNECTS_NOT: dict[type[StepOptions], str] = {
    FileStep: _NO_UPLOAD_ENDS,
    TemplateStep: _NO_UPLOAD_ENDS,
    RebootStep: "a reboot waits for the machine by itself",
    AnsibleStep: "let the playbook reboot the machine with ansible.builtin.reboot, which waits for it",
    CustomStep: "only a shell step may end the connection",
    UseStep: "set it on the provisioner's step that ends the connection",
}
"""Reason why a step of this kind cannot have `expect_disconnect: true`."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A `when` expression, and the names that it may use."""

    expression: str
    names: Mapping[str, Mapping[str, Any]]
    of_the_run: frozenset[str]
    """Variables or parameters that are sensitive, or whose values come from `build`."""

    def decide(self) -> bool | Late:
        """Return whether it is true, or the expression if only the run can decide it.

        The run decides conditions that depend on the source image, on `build` or on a secret, so that all runs of a
        spec have the same stages.
        """
        known = render.used_by_expression(self.expression, self.names)
        variables = {*known.get("var", ()), *known.get("param", ())}
        is_of_the_run = "build" in known or render.has_late(known) or not variables.isdisjoint(self.of_the_run)
        if is_of_the_run or names_late(render.names_in_expression(self.expression)):
            return Late(self.expression, tuple(known.items()))
        return render.is_true(self.expression, self.names)


@dataclass(frozen=True, slots=True)
class StepAt:
    """A step, and its place in the files."""

    step: PlainStep | PlainTest
    folder: Path
    """Folder that its paths are relative to."""
    file: str
    line: int
    path: str
    """Path in the spec: `provision.2`, or `provision.2/apt-install.0` for a step of a provisioner."""
    names: Mapping[str, Mapping[str, Any]]
    """Names that its template file may use: `var` or `param`, `spec`, `build`."""
    conditions: tuple[Condition, ...] = ()
    """Its own `when`, and those of the `use` steps around it. The step runs if all of them hold."""
    used_at: tuple[str, ...] = ()
    """Places of the `use` steps around it, innermost first: `web.yaml:31`."""

    def where(self) -> str:
        """Return the step's place for messages: its file and line, and those of the `use` steps around it."""
        return ", used in ".join((f"{self.file}:{self.line}", *self.used_at))


def expand(
    steps: Sequence[CommonOptions],
    document: Document,
    path: KeyPath,
    file: Path,
    scope: Scope,
    unknown: Mapping[KeyPath, str],
    outer: tuple[str, ...] = (),
) -> tuple[tuple[StepAt, ...], list[Problem]]:
    """Return every step, provisioners expanded, and the problems of files, templates and parameters."""
    found: list[StepAt] = []
    problems: list[Problem] = []
    for index, step in enumerate(steps):
        at = (*path, index)
        if isinstance(step, StepOptions) and step.expect_disconnect and not isinstance(step, ShellStep):
            problems.append(document.problem((*at, "expect_disconnect"), _DISCONNECTS_NOT[type(step)]))
        match step:
            case UseStep():
                inner, more = _expand_use(step, document, at, file, scope, unknown, outer)
                found += inner
                problems += more
            case ShellStep() | FileStep() | TemplateStep() | RebootStep() | AnsibleStep() | CustomStep():
                problems += check_step(step, document, at, file.parent, scope, unknown)
                found.append(_step_at(step, document, at, file, scope))
            case HttpTest() | PortTest() | PackageTest() | ServiceTest() | PathTest() | CommandTest():
                found.append(_step_at(step, document, at, file, scope))
            case _:
                raise AssertionError(f"a step of no known kind: {step!r}")
    return tuple(found), problems


def _step_at(step: PlainStep | PlainTest, document: Document, at: KeyPath, file: Path, scope: Scope) -> StepAt:
    label, line, when = ".".join(map(str, at)), document.mark(at).line, _condition(step, scope)
    return StepAt(step, file.parent, document.file, line, label, dict(scope.known), when)


def _condition(step: CommonOptions, scope: Scope) -> tuple[Condition, ...]:
    of_the_run = scope.sensitive | scope.of_the_run
    return (Condition(step.when, dict(scope.known), of_the_run),) if step.when else ()


def _expand_use(
    step: UseStep,
    document: Document,
    at: KeyPath,
    file: Path,
    scope: Scope,
    unknown: Mapping[KeyPath, str],
    outer: tuple[str, ...],
) -> tuple[list[StepAt], list[Problem]]:
    here = file.parent.resolve()
    folder = provisioner_folder(step.use, here)
    if folder is None:
        if link := broken_provisioner(step.use, here):
            return [], [document.problem((*at, "use"), link)]
        names = provisioner_names(here)
        hint = f"known provisioners: {', '.join(names)}" if names else None
        return [], [
            document.problem((*at, "use"), f"no provisioner '{step.use}'{did_you_mean(step.use, names)}", hint=hint)
        ]
    if step.use in outer or len(outer) >= MAX_DEPTH:
        return [], [document.problem((*at, "use"), f"provisioner uses itself: {' -> '.join((*outer, step.use))}")]
    inner_file = folder / "provisioner.yaml"
    inner = read_provisioner(inner_file, shown_path(inner_file))
    if inner.problems or not isinstance(inner.value, dict):
        return [], inner.problems or [inner.problem((), "a provisioner must be a mapping with description and steps")]
    parameters, problems = declared_parameters(inner)
    values, more = _values(step, parameters, document, at, unknown)
    problems += more
    used = {name: _names_in(document, (*at, "with", name)) for name in values}
    inside = Scope(
        known={"param": values, "spec": scope.known["spec"], "build": scope.known["build"]},
        declared=frozenset(parameters),
        sensitive=frozenset(name for name in values if scope.secrets_in(used[name])),
        of_the_run=frozenset(name for name in values if scope.differs_between_runs(used[name])),
        no_git_sha=scope.no_git_sha,
        root="param",
    )
    rendered = render_document(inner, inside, skip=frozenset({"parameters"}))
    problems += rendered.problems
    try:
        provisioner = Provisioner.model_validate(rendered.value)
    except ValidationError as error:
        return [], list(dict.fromkeys(problems + explain(error, inner, Provisioner)))
    steps = tuple(_inherit(inner_step, step) for inner_step in provisioner.steps)
    found, more = expand(steps, inner, ("steps",), inner_file, inside, rendered.unknown, (*outer, step.use))
    outer_condition = _condition(step, scope)
    label = ".".join(map(str, at)) + f"/{step.use}"
    use = f"{document.file}:{document.mark(at).line}"
    placed = [
        replace(
            inside_use,
            path=inside_use.path.replace("steps", label, 1),
            conditions=outer_condition + inside_use.conditions,
            used_at=(*inside_use.used_at, use),
        )
        for inside_use in found
    ]
    return placed, problems + more


def read_provisioner(file: Path, shown: str) -> Document:
    """Read a provisioner's document, with its problems."""
    text = yaml_document.read(file, shown)
    if isinstance(text, Problem):
        return Document(shown, [], problems=[text])
    documents = yaml_document.parse(text, shown)
    if len(documents) == 1:
        return documents[0]
    message = "the file is empty" if not documents else "a provisioner must be one document"
    return Document(shown, [], problems=[Problem(shown, 0, 0, message)])


def shown_path(inner_file: Path) -> str:
    """Return the path of a provisioner's file, relative to the working directory if it is below it."""
    try:
        return str(inner_file.relative_to(Path.cwd()))
    except ValueError:
        return str(inner_file)


def declared_parameters(inner: Document) -> tuple[dict[str, Parameter], list[Problem]]:
    """Return the parameters of a provisioner's document, and the problems of their defaults."""
    declared: dict[str, Parameter] = {}
    raw = inner.value.get("parameters")
    problems: list[Problem] = []
    for name, value in raw.items() if isinstance(raw, dict) else ():
        try:
            declared[name] = parameter = Parameter.model_validate(value)
        except ValidationError:
            # The model of the whole provisioner reports the error; the name counts as declared.
            declared[name] = Parameter(description="unknown")
            continue
        if parameter.default is not None and not _fits(parameter.default, parameter.type):
            message = f"the parameter is {_a(parameter.type)}, but its default is {parameter.default!r}"
            problems.append(inner.problem(("parameters", name, "default"), message))
    return declared, problems


_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
    "mapping": (dict,),
}


EMPTY: dict[str, Any] = {"string": "", "list": [], "mapping": {}, "boolean": False}
"""Value of a parameter that has neither a value nor a default, by its type."""


def _fits(value: Any, kind: str) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _a(kind: str) -> str:
    return f"{'an' if kind == 'integer' else 'a'} {kind}"


def _values(
    step: UseStep,
    parameters: Mapping[str, Parameter],
    document: Document,
    at: KeyPath,
    unknown: Mapping[KeyPath, str],
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the value of every parameter.

    A parameter whose value is missing or wrong is reported once and left out, so that its uses are not reported too.
    """
    values: dict[str, Any] = {
        name: EMPTY.get(parameter.type) if parameter.default is None else parameter.default
        for name, parameter in parameters.items()
    }
    problems: list[Problem] = []
    for name, value in step.with_.items():
        path = (*at, "with", name)
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            problems.append(
                document.problem(
                    path,
                    f"provisioner '{step.use}' has no parameter '{name}'{did_you_mean(name, parameters)}",
                    key=True,
                    hint=f"its parameters: {known}",
                )
            )
            continue
        kind = parameters[name].type
        fits = _fits(value, kind)
        if not fits and isinstance(value, str) and path not in unknown:
            value, fits = _converted(value, kind)
        if isinstance(value, Late) and kind == "string":
            values[name] = value  # only the run knows the value, so its uses are late too
            continue
        if render.has_late(value):
            problems.append(document.problem(path, LATE_HERE))
        elif not fits and path not in unknown:
            hint = f"write [{value}]" if kind == "list" and isinstance(value, str | int | float) else None
            problems.append(document.problem(path, f"parameter '{name}' is {_a(kind)}, not {value!r}", hint=hint))
        elif path not in unknown:
            values[name] = value
            continue
        del values[name]
    for name, parameter in parameters.items():
        if parameter.required and name not in step.with_:
            problems.append(
                document.problem(at, f"provisioner '{step.use}' needs parameter '{name}': {parameter.description}")
            )
            del values[name]
    return values, problems


def _converted(text: str, kind: str) -> tuple[Any, bool]:
    """Convert a rendered template, which is a string, to a number or a boolean, if the parameter is one.

    A number that would not keep its text, such as `3.10`, is not converted.
    """
    if kind in ("integer", "number"):
        found = as_number(text)
        return (found, True) if isinstance(found, int) or (kind == "number" and found is not None) else (text, False)
    if kind == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true", True
    return text, False


def _names_in(document: Document, path: KeyPath) -> frozenset[str]:
    """Return the names that the templates in a value use, at any depth; none if one is not a valid template."""
    todo, names = [value_at(document.value, path)], frozenset[str]()
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
            continue
        with suppress(render.RenderError):
            names |= render.names_used(str(value))
    return names


def _inherit(inner: Any, outer: UseStep) -> Any:
    """Return a copy of a provisioner's step; options that it does not set are taken from the `use` step."""
    update: dict[str, Any] = {}
    if inner.sudo is None and outer.sudo is not None:
        update["sudo"] = outer.sudo
    for name in ("timeout", "retries", "idempotent"):
        if name in outer.model_fields_set and name not in inner.model_fields_set:
            update[name] = getattr(outer, name)
    if outer.env:
        update["env"] = {**outer.env, **inner.env}
    return inner.model_copy(update=update) if update else inner
