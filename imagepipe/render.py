"""Templates: Jinja, sandboxed, and an undefined name is an error. The one place that imports jinja2."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from imagepipe.errors import ImagepipeError
from imagepipe.values import Late, Text

LATE_NAMES = frozenset({"source", "region"})
"""What is known only while the graph runs."""


class RenderError(ImagepipeError):
    """A template cannot be rendered. `line` is 1-based in the template's text, where it is known."""

    def __init__(self, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters["quote"] = lambda value: shlex.quote(str(value))
    # range(10**9) in a template would hold a worker for minutes and fill the memory; nobody needs it here.
    environment.globals.clear()
    return environment


_ENVIRONMENT = _environment()
_RAW_HINT = "text that must keep its double braces stands between {% raw %} and {% endraw %}"


def is_template(text: str) -> bool:
    """Whether rendering could change the text."""
    return "{{" in text or "{%" in text or "{#" in text


@lru_cache(maxsize=4096)
def names_used(text: str) -> frozenset[str]:
    """The names that a template reads, dotted as written: `var.greeting`, `region`.

    Raises RenderError where the text is not a template.
    """
    try:
        tree = _ENVIRONMENT.parse(text)
    except TemplateSyntaxError as error:
        raise RenderError(f"bad template: {error.message}", line=error.lineno, hint=_RAW_HINT) from error
    return _dotted_names(tree)


@lru_cache(maxsize=1024)
def names_in_expression(expression: str) -> frozenset[str]:
    """The names that an expression without braces (`when:`) reads. Raises RenderError where it is none."""
    try:
        tree = _ENVIRONMENT.parse("{{ (" + expression + "\n) }}")
    except TemplateSyntaxError as error:
        raise RenderError(f"bad expression: {error.message}", hint="write it without braces") from error
    return _dotted_names(tree)


def render(text: str, names: Mapping[str, Any]) -> str:
    """The text with every template in it replaced. Raises RenderError on a name that is not there."""
    if not is_template(text):
        return text
    try:
        return _ENVIRONMENT.from_string(text).render(names)
    except TemplateSyntaxError as error:
        raise RenderError(f"bad template: {error.message}", line=error.lineno, hint=_RAW_HINT) from error
    except UndefinedError as error:
        raise RenderError(f"template: {error.message}") from error
    except SecurityError as error:
        raise RenderError(f"template does what a template must not: {error}") from error
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise RenderError(f"template failed: {error}") from error


def holds(expression: str, names: Mapping[str, Any]) -> bool:
    """Whether a `when` expression is true."""
    return render("{{ 'yes' if (" + expression + "\n) else 'no' }}", names) == "yes"


def finish(text: Text, names: Mapping[str, Any]) -> str:
    """What a text is, now that `source` and `region` are known."""
    if isinstance(text, Late):
        return render(text.text, {**dict(text.known), **names})
    return text


def _dotted_names(tree: nodes.Template) -> frozenset[str]:
    bound = {node.name for node in tree.find_all(nodes.Name) if node.ctx in ("store", "param")}
    found: set[str] = set()
    fields: set[int] = set()
    parts: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
    for part in parts:
        name = _dotted(part)
        if name and name.partition(".")[0] not in bound:
            found.add(name)
            fields.add(id(part.node))
    for node in tree.find_all(nodes.Name):
        if node.ctx == "load" and node.name not in bound and id(node) not in fields:
            found.add(node.name)
    return frozenset(found - _guarded(tree))


def _dotted(node: nodes.Node) -> str | None:
    """`var.x` of a field of a plain name, or the plain name."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Name) and isinstance(node.arg, nodes.Const):
        return f"{node.node.name}.{node.arg.value}"
    return None


def _guarded(tree: nodes.Template) -> set[str]:
    """Names that a template asks for with care: `x is defined`, `x | default(…)`. They need not be there."""
    tested = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    tested += [filter.node for filter in tree.find_all(nodes.Filter) if filter.name in ("default", "d") and filter.node]
    return {name for node in tested if (name := _dotted(node))}
