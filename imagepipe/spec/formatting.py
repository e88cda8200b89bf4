"""Lay out a YAML file: indentation, spaces and line ends change; comments, quotes, order and values do not."""

from __future__ import annotations

import io
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.resolver import VersionedResolver
from ruamel.yaml.tag import Tag

from imagepipe.errors import ImagepipeError, Problem, SpecError

UNLIMITED = 1 << 20
"""Width of a line: nothing is wrapped, because a wrapped script would be hard to read."""


class _Texts(VersionedResolver):
    """Take every plain scalar for a text, so that `0644`, `yes` and `1.10` are written as they were read."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is ScalarNode:
            return Tag(suffix="tag:yaml.org,2002:str")
        return super().resolve(kind, value, implicit)


def formatted(text: str, file: str) -> str:
    """Return a file's content in the layout of imagepipe's own samples; `file` is its name in errors.

    Raises SpecError if it is not YAML.
    """
    ruamel = YAML()
    ruamel.Resolver = _Texts
    ruamel.preserve_quotes = True
    ruamel.width = UNLIMITED
    ruamel.indent(mapping=2, sequence=4, offset=2)
    ruamel.explicit_start = text.lstrip().startswith("---\n") or None
    try:
        before = _nodes(text)
        if before is None:  # ruamel would write `null` below the comments of an empty file
            return text
        out = io.StringIO()
        ruamel.dump(ruamel.load(text), out)
        made = out.getvalue()
        after = _nodes(made)
    except (YAMLError, yaml.YAMLError) as error:
        raise SpecError([_problem(error, file)]) from error
    if before != after:
        raise ImagepipeError(f"formatting {file} would change its values, so it was left alone; please report this")
    return made


def _nodes(text: str) -> Any:
    """Return the tags and values of a file's nodes, as imagepipe's own parser sees them."""
    return _plain(yaml.compose(text, Loader=yaml.SafeLoader))


def _plain(node: yaml.Node | None) -> Any:
    match node:
        case yaml.ScalarNode():
            return node.tag, node.value
        case yaml.SequenceNode():
            return node.tag, [_plain(each) for each in node.value]
        case yaml.MappingNode():
            return node.tag, [(_plain(key), _plain(value)) for key, value in node.value]
        case _:
            return None


def _problem(error: Exception, file: str) -> Problem:
    mark = getattr(error, "problem_mark", None)
    message = getattr(error, "problem", None) or str(error)
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return Problem(file, line, column, f"not YAML: {message}", hint="imagepipe validate lists every problem")
