"""Render templates with Jinja in a sandbox; undefined names are errors. The only module that imports jinja2.

Templates are limited in resources too: each loop iteration, each character produced and each call is counted, and a
template that exceeds `WORK` is refused. Operations that could produce a lot at once, such as `'a' * 10**9`, are
estimated before they run.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from imagepipe.errors import ImagepipeError
from imagepipe.late import Late, Text

LATE_NAMES = frozenset({"source", "region"})
"""Names that are known only while the graph runs."""

WORK = 2_000_000
"""Largest number of iterations, characters and calls of one rendering: about a second of work."""
MAX_TEMPLATE = 256 * 1024
"""Longest template in characters; parsing it takes a second or two."""


class RenderError(ImagepipeError):
    """A template cannot be rendered. `line` is 1-based in the template's text; None if it is unknown."""

    def __init__(self, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.line = line


class _TooMuchWork(Exception):
    """A rendering exceeded `WORK`."""


_left: ContextVar[list[int] | None] = ContextVar("_left", default=None)
"""Remaining work of the rendering in this context; None while Jinja folds constants, outside any rendering."""


def _spend(amount: int) -> None:
    left = _left.get()
    if left is None:
        if amount > 1000:
            raise _TooMuchWork  # Jinja then evaluates the constant during the rendering
        return
    left[0] -= amount
    if left[0] < 0:
        raise _TooMuchWork


def _size(value: Any) -> int:
    """Count the characters and items of a nested value; stops soon after `WORK`."""
    if isinstance(value, str):
        return len(value)
    total, todo = 0, [value]
    while todo and total <= WORK:
        item = todo.pop()
        total += 1
        if isinstance(item, str | bytes):
            total += len(item)
        elif isinstance(item, Mapping):
            todo += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            todo += item
        elif isinstance(item, int):
            total += item.bit_length() // 64
    return total


def _measured(value: Any) -> Any:
    _spend(_size(value))
    return value


def _as_text(value: Any) -> Any:
    """Return a value with booleans as YAML writes them, `true` or `false`; also those in a list."""
    if isinstance(value, list | tuple):
        return type(value)(_as_text(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else value


_MAKES_TEXT = frozenset({"format", "join", "lower", "quote", "replace", "string", "title", "trim", "upper"})
"""Filters that make text of values, as output does."""


# Filters whose result can be larger than their input: at most the size of `self` times that of an argument.
_GROWING = frozenset(
    {"batch", "center", "expandtabs", "format", "indent", "join", "ljust", "replace", "rjust", "round"}
)
_GROWING |= {"slice", "tojson", "truncate", "wordwrap", "zfill"}
_WIDE_FIELD = re.compile(r"%[^a-zA-Z%]*(?:\d{5}|\*)")
"""A format such as `%100000d`: a few characters that produce many."""


def _reckon(name: str, subject: Any, arguments: Iterable[Any]) -> None:
    """Estimate and count the work of a filter or method before it runs."""
    sizes = [_size(a) for a in arguments]
    _spend(_size(subject) + sum(sizes) + 10)  # a call takes about as long as ten rounds of a loop
    if name in _GROWING:
        widths = [abs(int(a)) for a in arguments if isinstance(a, int | float) and abs(a) < 1e300]
        factor = max([1, *sizes, *widths])
        if (_size(subject) + 1) * factor > WORK or _has_wide_field(name, subject):
            raise _TooMuchWork


def _has_wide_field(name: str, subject: Any) -> bool:
    return name == "format" and isinstance(subject, str) and bool(_WIDE_FIELD.search(subject))


def _output(value: Any) -> Any:
    return _as_text(_measured(value))  # measured first, because a nested list may be too large to copy


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its work is estimated before and counted after it runs."""
    passes = getattr(function, "jinja_pass_arg", None) is not None  # its first argument is Jinja's, not the template's

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        subject, *rest = args[passes:]
        _reckon(name, subject, [*rest, *kwargs.values()])
        if name in _MAKES_TEXT:
            args = tuple(map(_as_text, args))
        return _measured(function(*args, **kwargs))

    return run


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _spend(1)
        yield item


class _Count(NodeTransformer):
    """Adds counting to loops and concatenations, which Jinja compiles to plain Python."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the visitor's convention
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "_together", [], [], None, None, lineno=node.lineno)

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.filter = nodes.Filter(node.filter, "_measured", [], [], None, None, lineno=node.lineno)
        return node


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a limit on the work of a template."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = Parser(self, source, name, filename).parse()
        for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
            raise TemplateSyntaxError("a template cannot include another", node.lineno)
        counted: nodes.Template = _Count().visit(tree)
        return counted

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        size = _size(left) + _size(right)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and numbers and abs(right) * max(1, int(left).bit_length()) > 4096:
            raise _TooMuchWork
        if operator == "*" and not numbers:
            times = left if isinstance(left, int) else right
            size *= max(1, times) if isinstance(times, int) else 1
        if operator == "%" and isinstance(left, str) and _WIDE_FIELD.search(left):
            raise _TooMuchWork
        _spend(size)
        if operator == "%" and isinstance(left, str):
            right = _as_text(right)
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        # A variable may be named `update` or `items`; Jinja itself would find the method of the mapping.
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is not None:
            raise SecurityError("str.format is not available; write '%s' | format(x), or x ~ y")
        return None

    def call(self, context: Any, callee: Any, *args: Any, **kwargs: Any) -> Any:
        _reckon(getattr(callee, "__name__", ""), getattr(callee, "__self__", None), [*args, *kwargs.values()])
        return _measured(super().call(context, callee, *args, **kwargs))


def _environment(*, comments: tuple[str, str]) -> _Sandbox:
    environment = _Sandbox(
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        finalize=_output,
        cache_size=0,
        comment_start_string=comments[0],
        comment_end_string=comments[1],
    )
    for name in ("random", "pprint", "urlize", "xmlattr"):  # their results vary, or they are useless here
        del environment.filters[name]
    environment.filters = {name: _bounded(name, function) for name, function in environment.filters.items()}
    environment.filters |= {
        "quote": _bounded("quote", lambda value: shlex.quote(str(value))),
        "_counted": _counted,
        "_measured": _measured,
        "_together": lambda parts: _measured("".join(str(_output(part)) for part in parts)),
    }
    # range(10**9) in a template would block a thread for minutes and fill the memory.
    environment.globals.clear()
    return environment


_ENVIRONMENT = _environment(comments=("\ufdd0no comment\ufdd0", "\ufdd0no comment ends\ufdd0"))
"""For texts of a spec, which have no comments, because shells use `${#NAME}` and `${URL%#}`."""
_RAW_HINT = "put text that must keep its double braces between {% raw %} and {% endraw %}"
_COMMENT_HINT = "{# begins a comment of a template file, also in ${#x}: write {{ '{#' }}, or put {% raw %} around it"


@functools.cache
def _file_environment() -> _Sandbox:
    """Return the environment of template files, which have Jinja's comments."""
    return _environment(comments=("{#", "#}"))


def is_template(text: str) -> bool:
    """Return whether rendering could change a text of a spec."""
    return "{{" in text or "{%" in text


@lru_cache(maxsize=4096)
def names_used(text: str) -> frozenset[str]:
    """Return the names that a text of a spec reads, dotted as written: `var.greeting`, `region`.

    Raises RenderError if the text is not a valid template.
    """
    return _names_used(text, _ENVIRONMENT)


@lru_cache(maxsize=1024)
def names_used_in_file(text: str) -> frozenset[str]:
    """Return the names that a template file reads. Raises RenderError as `names_used` does."""
    return _names_used(text, _file_environment())


def optional_names(text: str) -> frozenset[str]:
    """Return the names that may be undefined because a valid text tests them: `x is defined`, `x | default(…)`."""
    return _guarded(_ENVIRONMENT.parse(text))


def optional_names_in_file(text: str) -> frozenset[str]:
    """Return the names that may be undefined in a valid template file."""
    return _guarded(_file_environment().parse(text))


def optional_names_in_expression(expression: str) -> frozenset[str]:
    """Return the names that may be undefined in a valid `when` expression."""
    return optional_names(_as_template(expression))


def _names_used(text: str, environment: _Sandbox) -> frozenset[str]:
    if len(text) > MAX_TEMPLATE:
        raise RenderError(f"a template can have at most {MAX_TEMPLATE // 1024} KiB", hint="upload it with file:")
    try:
        return _dotted_names(_checked(environment.parse(text)))
    except TemplateSyntaxError as error:
        raise _syntax_error(error) from error
    except RecursionError as error:
        raise RenderError("bad template: nested too deeply") from error


@lru_cache(maxsize=1024)
def names_in_expression(expression: str) -> frozenset[str]:
    """Return the names that an expression without braces (`when:`) reads. Raises RenderError if it is invalid."""
    hint = "write it without braces" if "{{" in expression else None
    try:
        parser = Parser(_ENVIRONMENT, expression, state="variable")
        found = parser.parse_expression()
        if not parser.stream.eos:
            raise TemplateSyntaxError(f"unexpected {parser.stream.current.value!r}", 1)
        return _dotted_names(_checked(nodes.Template([nodes.Output([found])])))
    except TemplateSyntaxError as error:
        if "got '='" in str(error.message) or "unexpected '='" in str(error.message):
            hint = "compare values with =="
        message = str(error.message)
        if "end of template" in message:
            message = "it ends too early" if expression.strip() else "it is empty"
        raise RenderError(f"bad expression: {message}", hint=hint) from error
    except RecursionError as error:
        raise RenderError("bad expression: nested too deeply") from error


def used_by(text: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the part of `known` that a text of a spec can read. The text must be a valid template."""
    return _select(known, _ENVIRONMENT.parse(text))


def used_by_file(text: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the part of `known` that a template file can read; all of it if the file is not a template."""
    try:
        return _select(known, _file_environment().parse(text))
    except (TemplateSyntaxError, RecursionError):
        return dict(known)  # rendering reports the error


def used_by_expression(expression: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the part of `known` that a valid `when` expression can read."""
    return used_by(_as_template(expression), known)


def _as_template(expression: str) -> str:
    return "{{ (" + expression + "\n) }}"


def _select(known: Mapping[str, Mapping[str, Any]], tree: nodes.Template) -> dict[str, Mapping[str, Any]]:
    """Select the values of every name in the tree, even if it is only tested, or redefined by a loop or macro."""
    fields: dict[str, set[str]] = {}
    whole: set[str] = set()
    of_fields = set()
    parts: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
    for part in parts:
        first, _, rest = (_dotted(part) or "").partition(".")
        if rest:
            fields.setdefault(first, set()).add(rest)
            of_fields.add(id(part.node))
    for name in tree.find_all(nodes.Name):
        if id(name) not in of_fields:
            whole.add(name.name)
    return {
        first: values if first in whole else {key: value for key, value in values.items() if key in fields[first]}
        for first, values in known.items()
        if first in whole or first in fields
    }


def render(text: str, names: Mapping[str, Any]) -> str:
    """Render a text of a spec. Raises RenderError for an undefined name."""
    return _render(text, names, _ENVIRONMENT) if is_template(text) else text


def render_file(text: str, names: Mapping[str, Any]) -> str:
    """Render the text of a template file, without its comments. Raises RenderError as `render` does."""
    return _render(text, names, _file_environment())


def _render(text: str, names: Mapping[str, Any], environment: _Sandbox) -> str:
    carriage_return = _unused_character(text) if "\r" in text else ""
    if carriage_return:  # Jinja would turn each one into a line feed
        text = text.replace("\r", carriage_return)
    token = _left.set([WORK])
    try:
        rendered = environment.from_string(text).render(names)
        return rendered.replace(carriage_return, "\r") if carriage_return else rendered
    except TemplateSyntaxError as error:
        raise _syntax_error(error) from error
    except UndefinedError as error:
        raise RenderError(f"template: {error.message}") from error
    except SecurityError as error:
        raise RenderError(f"a template is not allowed to do this: {error}") from error
    except (_TooMuchWork, MemoryError) as error:
        message = f"template does too much: more than {WORK:,} loop rounds and characters"
        raise RenderError(message, hint="do it in a script") from error
    except (RecursionError, SyntaxError) as error:  # SyntaxError: more than 20 blocks in one another
        raise RenderError("template failed: nested too deeply") from error
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise RenderError(f"template failed: {error}") from error
    finally:
        _left.reset(token)


def _unused_character(text: str) -> str:
    """Return a noncharacter of Unicode that the text does not contain."""
    return next(chr(number) for number in range(0xFDD1, 0xFDF0) if chr(number) not in text)


def _checked(tree: nodes.Template) -> nodes.Template:
    """Return the tree. Raises TemplateSyntaxError for an unknown filter or test, which Jinja only finds at run time."""
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        assert isinstance(node, nodes.Filter | nodes.Test)
        kind, known = ("test", _ENVIRONMENT.tests) if isinstance(node, nodes.Test) else ("filter", _ENVIRONMENT.filters)
        if node.name not in known:
            from difflib import get_close_matches

            meant = get_close_matches(node.name, [name for name in known if not name.startswith("_")], n=1)
            suffix = f"; did you mean '{meant[0]}'?" if meant else ""
            raise TemplateSyntaxError(f"no {kind} is named '{node.name}'{suffix}", node.lineno)
    return tree


def _syntax_error(error: TemplateSyntaxError) -> RenderError:
    message = str(error.message).rstrip(".")
    hint: str | None
    if "comment tag" in message:
        hint = _COMMENT_HINT
    elif message.startswith(("no filter", "no test", "a template cannot")):
        hint = None
    elif "'`'" in message:
        hint = "in place of Packer's {{user `x`}}: {{ var.x }}"
    else:
        hint = _RAW_HINT
    return RenderError(f"bad template: {message}", line=error.lineno, hint=hint)


def is_true(expression: str, names: Mapping[str, Any]) -> bool:
    """Return whether a `when` expression is true."""
    return render("{{ 'yes' if (" + expression + "\n) else 'no' }}", names) == "yes"


def render_late(text: Text, names: Mapping[str, Any]) -> str:
    """Render a text, now that `source` and `region` are known."""
    return render(text.text, names_of(text, names)) if isinstance(text, Late) else text


def render_late_values(texts: Mapping[str, Text], names: Mapping[str, Any]) -> dict[str, str]:
    """Render every value of a mapping, such as tags, now that `source` and `region` are known."""
    return {key: render_late(text, names) for key, text in texts.items()}


def names_of(late: Late, names: Mapping[str, Any]) -> dict[str, Any]:
    """Return all names that a late template may use, now that the run knows the rest."""
    return {**render_all_late(dict(late.known), names), **names}


def render_all_late(value: Any, names: Mapping[str, Any]) -> Any:
    """Render every late text in a nested value, including parameters, which may be late themselves."""
    if isinstance(value, Late):
        return render_late(value, names)
    if isinstance(value, Mapping):
        return {key: render_all_late(item, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [render_all_late(item, names) for item in value]
    return value


def has_late(value: Any) -> bool:
    """Return whether a nested value contains a late text."""
    if isinstance(value, Mapping):
        return any(has_late(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(has_late(item) for item in value)
    return isinstance(value, Late)


def _dotted_names(tree: nodes.Template) -> frozenset[str]:
    bound = {node.name for node in tree.find_all(nodes.Name) if node.ctx in ("store", "param")}
    macros = list(tree.find_all(nodes.Macro))
    bound |= {macro.name for macro in macros}
    if macros:
        bound |= {"caller", "varargs", "kwargs"}
    if tree.find(nodes.For):
        bound.add("loop")
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
    return frozenset(found)


def _dotted(node: nodes.Node) -> str | None:
    """Return `var.x` for a field of a plain name, the name itself for a plain name, and None otherwise."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
        return f"{node.node.name}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.node, nodes.Name) and isinstance(node.arg, nodes.Const):
        return f"{node.node.name}.{node.arg.value}"
    return None


def _guarded(tree: nodes.Template) -> frozenset[str]:
    tested = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    tested += [filter.node for filter in tree.find_all(nodes.Filter) if filter.name in ("default", "d") and filter.node]
    return frozenset(name for node in tested if (name := _dotted(node)))
