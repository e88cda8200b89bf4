"""Render a document's templates, after parsing and before validation, and report undefined names."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import field
from typing import Any

from imagepipe import render
from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem
from imagepipe.late import Late
from imagepipe.spec.document import Document, KeyPath, Mark
from imagepipe.spec.explain import nearest

SOURCE_FIELDS = ("id", "name", "owner")
BUILD_FIELDS = ("id", "timestamp", "git_sha")
SPEC_FIELDS = ("name",)
GIT_SHA = "build.git_sha"


@dataclass(slots=True)
class Scope:
    """Names that the templates of a document may use."""

    known: dict[str, Mapping[str, Any]]
    """Values of `var` or `param`, `matrix`, `spec` and `build` that are known before the run."""
    declared: frozenset[str]
    """Names of the variables or parameters, with or without a value."""
    sensitive: frozenset[str]
    of_the_run: frozenset[str] = frozenset()
    """Names of parameters whose values are made from `build`, so that they differ between runs."""
    no_git_sha: str | None = None
    """Reason why `build.git_sha` has no value; None if it has one."""
    root: str = "var"
    """Root of the declared names: `var` in a spec, `param` in a provisioner."""
    is_open: bool = False
    """True if any name is accepted, because the declarations cannot be read."""
    used: set[str] = field(default_factory=set)
    """Names of variables that are used."""

    def problem_with(self, name: str) -> str | None:
        """Return the reason why a dotted name cannot be used; None if it can."""
        first, _, rest = name.partition(".")
        if name == GIT_SHA and self.no_git_sha:
            return f"{GIT_SHA} has no value: {self.no_git_sha}"
        fields: dict[str, Collection[str]] = {
            self.root: self.declared,
            "spec": SPEC_FIELDS,
            "build": BUILD_FIELDS,
            "source": SOURCE_FIELDS,
        }
        if "matrix" in self.known:
            fields["matrix"] = self.known["matrix"].keys()
        if first == "region":
            return None if not rest else "'region' has no fields"
        if first not in fields:
            if self.root == "param" and first in ("var", "matrix"):
                return f"'{name}': a provisioner sees only its parameters, as param.NAME"
            if first == "matrix":
                return f"'{name}': the spec has no `matrix`"
            homes = [home for home, names in fields.items() if first in names]
            meant = f"{homes[0]}.{first}" if homes else nearest(first, [*fields, "region"])
            if meant in fields and rest:
                meant = f"{meant}.{rest}"
            self.note(frozenset({meant or ""}))  # it is misspelt, but counts as used
            return f"undefined name '{name}'" + (f"; did you mean '{meant}'?" if meant else "")
        if not rest or rest in fields[first] or (first == self.root and self.is_open):
            return None
        what = {"var": "variable", "param": "parameter"}.get(first, "name")
        if meant := nearest(rest, fields[first]):
            self.note(frozenset({f"{first}.{meant}"}))
            return f"undefined {what} '{name}'; did you mean '{first}.{meant}'?"
        known = "" if first == self.root else f"; known: {', '.join(f'{first}.{field}' for field in fields[first])}"
        return f"undefined {what} '{name}'{known}"

    def hint_for(self, name: str) -> str | None:
        """Return the hint for a name that has a problem."""
        if name != GIT_SHA:
            return None
        return f"build in a git checkout with a commit, or write {{{{ {GIT_SHA} | default('none') }}}}"

    def differs_between_runs(self, names: frozenset[str]) -> bool:
        """Return whether a value among these comes from `build`, directly or through a parameter."""
        parts = [name.partition(".") for name in names]
        return any(
            first == "build" or (first == self.root and (field in self.of_the_run if field else bool(self.of_the_run)))
            for first, _, field in parts
        )

    def note(self, names: frozenset[str]) -> None:
        """Note the variables that these names use; `var` alone uses all of them."""
        for name in names:
            first, _, rest = name.partition(".")
            if first == self.root:
                self.used |= {rest} if rest else set(self.declared)

    def lacks_value(self, names: frozenset[str]) -> bool:
        """Return whether a variable among these has no value yet."""
        values = self.known[self.root]
        used = {name.partition(".")[2] for name in names if name.startswith(self.root + ".")}
        return any(name not in values and (name in self.declared or self.is_open) for name in used)

    def has_late(self, names: frozenset[str]) -> bool:
        """Return whether a parameter among these has a text that only the run can render."""
        values = self.known[self.root]
        used = [name.partition(".")[2] for name in names if name.partition(".")[0] == self.root]
        return any(render.has_late(values.get(name) if name else values) for name in used)

    def secrets_in(self, names: frozenset[str]) -> list[str]:
        """Return the sensitive variables among these names; `var` alone can read all of them."""
        if self.root in names:
            return sorted(f"{self.root}.{name}" for name in self.sensitive)
        return sorted(
            name for name in names if name.startswith(self.root + ".") and name.partition(".")[2] in self.sensitive
        )


@dataclass(slots=True)
class Rendered:
    """A document's value with its templates replaced."""

    value: Any = None
    unknown: dict[KeyPath, str] = field(default_factory=dict)
    """Templates that were replaced with PLACEHOLDER, by path: a variable has no value, or the template has an error."""
    problems: list[Problem] = field(default_factory=list)


PLACEHOLDER = "unknown"
"""Text in place of a template that cannot be rendered yet: valid as a name, as a part of a path and as a text."""


def render_document(document: Document, scope: Scope, *, skip: frozenset[str] = frozenset()) -> Rendered:
    """Render every scalar of a document except those below the top-level keys in `skip`."""
    rendered = Rendered()
    value = document.value
    if isinstance(value, dict):
        rendered.value = {
            key: item if key in skip else _render(item, (key,), document, scope, rendered)
            for key, item in value.items()
        }
    else:
        rendered.value = value
    return rendered


def _render(value: Any, path: KeyPath, document: Document, scope: Scope, rendered: Rendered) -> Any:
    if isinstance(value, dict):
        return {key: _render(item, (*path, key), document, scope, rendered) for key, item in value.items()}
    if isinstance(value, list):
        return [_render(item, (*path, index), document, scope, rendered) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    if is_when(path):
        check_text(value, path, document, scope, rendered.problems, is_expression=True)
        return value
    if not render.is_template(value):
        return value
    names = check_text(value, path, document, scope, rendered.problems)
    if names is None:
        rendered.unknown[path] = value
        return PLACEHOLDER
    secrets = scope.secrets_in(names)
    if secrets and not _may_hold_secret(path):
        is_request = path[0] == "test" and path[2:3] == ("http",)
        hint = "send it in headers" if is_request else "pass it through the step's env"
        message = f"{', '.join(secrets)} is sensitive and cannot be used here, where others can read it"
        rendered.problems.append(document.problem(path, message, hint=hint))
        rendered.unknown[path] = value
        return PLACEHOLDER
    if scope.lacks_value(names):
        rendered.unknown[path] = value
        return PLACEHOLDER
    if names_late(names) or scope.has_late(names):
        return Late(value, tuple(render.used_by(value, scope.known).items()))
    try:
        return render.render(value, scope.known)
    except render.RenderError as error:
        rendered.problems.append(
            document.at(inside(document, path, error.line), error.message, path=path, hint=error.hint)
        )
        rendered.unknown[path] = value
        return PLACEHOLDER


def is_when(path: KeyPath) -> bool:
    """Return whether the value at this path is a `when` expression."""
    return len(path) == 3 and path[2] == "when" and path[0] in ("provision", "test", "steps")


def names_late(names: frozenset[str]) -> bool:
    """Return whether any of the names is known only while the graph runs."""
    return any(name.partition(".")[0] in render.LATE_NAMES for name in names)


def check_text(
    text: str,
    path: KeyPath,
    document: Document,
    scope: Scope,
    problems: list[Problem],
    *,
    is_expression: bool = False,
) -> frozenset[str] | None:
    """Return the names that a template or expression uses; None, after adding the problems, if any is wrong."""
    try:
        names = render.names_in_expression(text) if is_expression else render.names_used(text)
    except render.RenderError as error:
        problems.append(document.at(inside(document, path, error.line), error.message, path=path, hint=error.hint))
        return None
    scope.note(names)
    wrong = [(name, message) for name in sorted(names) if (message := scope.problem_with(name))]
    if wrong:
        optional = (render.optional_names_in_expression if is_expression else render.optional_names)(text)
        wrong = [(name, message) for name, message in wrong if name not in optional]
    for name, message in wrong:
        problems.append(document.at(_where(document, path, name), message, path=path, hint=scope.hint_for(name)))
    return None if wrong else names


def _may_hold_secret(path: KeyPath) -> bool:
    """Return whether a path may hold a sensitive value.

    These are `env`, an inline script, `vars` of a template, `with`, and the headers of a test's request. The arguments
    of a command may not, because everybody on the instance can see them.
    """
    if path[0] not in ("provision", "test", "steps") or len(path) < 3:
        return False
    is_inline = path[2] == "shell" and (len(path) == 3 or path[3] == "inline" or isinstance(path[3], int))
    is_script = path[2:] in (("command",), ("command", "command"))
    is_map = path[2] in ("env", "with") or path[2:4] in (("template", "vars"), ("http", "headers"))
    return is_inline or is_script or is_map


def inside(document: Document, path: KeyPath, line: int | None) -> Mark:
    """Return the position of a line in a string value; if the line is unknown, the position of the whole string."""
    mark = document.mark(path)
    first = document.lines[mark.line - 1][mark.column - 1 :] if mark.line <= len(document.lines) else ""
    if line is None or not first.startswith(("|", ">")):
        return mark
    number = mark.line + line
    text = document.lines[number - 1] if number <= len(document.lines) else ""
    return Mark(number, len(text) - len(text.lstrip()) + 1, max(1, len(text.strip())))


def _where(document: Document, path: KeyPath, name: str) -> Mark:
    """Return the position of a name's first use in the text at a path."""
    mark = document.mark(path)
    for number in range(mark.line, min(max(mark.line, mark.last), len(document.lines)) + 1):
        start = mark.column - 1 if number == mark.line else 0
        if found := find_name(name, document.lines[number - 1], start):
            return Mark(number, *found)
    return mark


def find_name(name: str, line: str, start: int = 0) -> tuple[int, int] | None:
    """Return column (1-based) and length of a dotted name in a line, as `a.b` or `a['b']`, not as part of another."""
    first, _, rest = map(re.escape, name.partition("."))
    field = rf"(?:\s*\.\s*{rest}|\[\s*['\"]{rest}['\"]\s*\])" if rest else ""
    found = re.compile(rf"(?<![\w.]){first}{field}(?!\w)").search(line, start)
    return (found.start() + 1, found.end() - found.start()) if found else None
