"""YAML text to plain values, with the position of every key and value.

PyYAML's C parser reads; the values are built here from its nodes, because its own constructor forgets
positions, keeps the last of two equal keys, and expands an alias as often as it is told to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from imagepipe.errors import Problem

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # a PyYAML that was built without libyaml: slower, the same result
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

Path = tuple[str | int, ...]

MAX_NODES = 100_000
"""Values in one document, aliases expanded; the largest real spec that we know has under 2,000."""
MAX_DEPTH = 64
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something stands. Line and column are 1-based; length is in characters of its first line."""

    line: int
    column: int
    length: int


@dataclass(slots=True)
class Document:
    """One YAML document of a file."""

    file: str
    lines: list[str]
    value: Any = None
    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    plain: dict[Path, str] = field(default_factory=dict)
    """The source text of plain scalars that YAML 1.1 read as something else than text."""
    problems: list[Problem] = field(default_factory=list)
    start: int = 1

    def mark(self, path: Path, *, key: bool = False) -> Mark:
        """The position of a value (or of its key); of the nearest thing around it where it has none."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path) or Mark(self.start, 1, 1)

    def problem(
        self,
        path: Path,
        message: str,
        *,
        key: bool = False,
        hint: str | None = None,
        severity: str = "error",
    ) -> Problem:
        """A problem at a path of this document, with its excerpt."""
        return self.at(self.mark(path, key=key), message, path=path, hint=hint, severity=severity)

    def at(
        self, mark: Mark, message: str, *, path: Path = (), hint: str | None = None, severity: str = "error"
    ) -> Problem:
        """A problem at a position."""
        excerpt = self.lines[mark.line - 1] if 0 < mark.line <= len(self.lines) else ""
        return Problem(
            file=self.file,
            line=mark.line,
            column=mark.column,
            message=message,
            path=".".join(str(part) for part in path),
            excerpt=excerpt[:500],
            length=max(1, min(mark.length, len(excerpt) - mark.column + 1)),
            hint=hint,
            severity=severity,
        )


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def parse(text: str, file: str) -> list[Document]:
    """The documents of a file. What is wrong with them is in their `problems`; it never raises for bad input."""
    lines = text.split("\n")
    if len(text) > MAX_BYTES:
        return [_broken(file, [], 0, 0, f"the file is larger than {MAX_BYTES // 2**20} MiB")]
    if bad := _UNPRINTABLE.search(text):
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        return [_broken(file, lines, line, column, f"character {bad.group()!r} is not allowed in YAML")]
    documents: list[Document] = []
    loader = _Loader(text)
    try:
        while loader.check_node():
            if (node := loader.get_node()) is not None:
                documents.append(_Builder(file, lines).document(node))
    except yaml.MarkedYAMLError as error:
        documents.append(_from_yaml_error(error, file, lines))
    except RecursionError:
        documents.append(_broken(file, lines, 0, 0, f"nested deeper than {MAX_DEPTH} levels"))
    finally:
        loader.dispose()
    return documents


def _broken(file: str, lines: list[str], line: int, column: int, message: str) -> Document:
    document = Document(file, lines)
    document.problems.append(document.at(Mark(line, column, 1), message))
    return document


def _from_yaml_error(error: yaml.MarkedYAMLError, file: str, lines: list[str]) -> Document:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    message = f"not YAML: {error.problem or error.context or 'cannot be read'}"
    if error.context and error.problem and error.context_mark:
        message += f" ({error.context}, line {error.context_mark.line + 1})"
    document = Document(file, lines)
    excerpt = lines[line - 1] if 0 < line <= len(lines) else ""
    hint = None
    if "\t" in excerpt[: max(column, 1)]:
        hint = "YAML is indented with spaces, not tabs"
    elif "{{" in excerpt or "{%" in excerpt:
        hint = 'a value that starts with a brace must be quoted: "{{ var.x }}"'
    document.problems.append(document.at(Mark(line, column, 1), message, hint=hint))
    return document


_BOOLS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}


class _Builder:
    """Values of one document out of its nodes."""

    def __init__(self, file: str, lines: list[str]) -> None:
        self.result = Document(file, lines)
        self.count = 0
        self.open: set[int] = set()

    def document(self, node: yaml.Node) -> Document:
        self.result.start = node.start_mark.line + 1
        try:
            self.result.value = self.build(node, ())
        except _TooMuch as stop:
            self.result.value = None
            self.result.problems.append(self.result.at(_mark(node), str(stop)))
        return self.result

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise _TooMuch(f"more than {MAX_NODES:,} values, aliases expanded")
        if len(path) > MAX_DEPTH:
            raise _TooMuch(f"nested deeper than {MAX_DEPTH} levels")
        self.result.values[path] = _mark(node)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open:
            raise _TooMuch("an alias contains itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self.mapping(node, path)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        built: dict[str, Any] = {}
        first: dict[str, Mark] = {}
        for key_node, value_node in self.pairs(node, path):
            key = self.key(key_node, path)
            if key is None:
                continue
            mark = _mark(key_node)
            if key in first:
                message = f"key '{key}' is there twice; first in line {first[key].line}"
                self.result.problems.append(self.result.at(mark, message, path=(*path, key)))
                continue
            first[key] = mark
            self.result.keys[(*path, key)] = mark
            built[key] = self.build(value_node, (*path, key))
        return built

    def pairs(self, node: yaml.MappingNode, path: Path) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """The pairs of a mapping, those that `<<` brings in last and only where the mapping has none itself."""
        own = [pair for pair in node.value if pair[0].tag != "tag:yaml.org,2002:merge"]
        yield from own
        taken = {key.value for key, _ in own if isinstance(key, yaml.ScalarNode)}
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode) or id(source) in self.open:
                    self.result.problems.append(self.result.at(_mark(key), "'<<' takes mappings only", path=path))
                    continue
                for inner_key, inner_value in source.value:
                    self.count += 1
                    name = inner_key.value if isinstance(inner_key, yaml.ScalarNode) else None
                    if name not in taken:
                        taken.add(name)
                        yield inner_key, inner_value

    def key(self, node: yaml.Node, path: Path) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            # `on:` and `no:` are booleans to YAML 1.1; as keys they were surely meant as text.
            return str(node.value)
        self.result.problems.append(self.result.at(_mark(node), "a key must be a text", path=path))
        return None

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind = node.tag.rpartition(":")[2]
        text: str = node.value
        if kind == "str" or node.style:  # only a plain scalar (no style) can be a number
            return text
        if kind == "null":
            return None
        self.result.plain[path] = text
        if kind == "bool":
            return _BOOLS[text.lower()]
        if kind in ("int", "float"):
            return _number(text, kind)
        if kind == "timestamp":
            return text
        self.result.problems.append(
            self.result.at(_mark(node), f"tag '{node.tag}' is not part of this language", path=path)
        )
        return None


class _TooMuch(Exception):
    """The document is one that nobody wrote by hand."""


def _mark(node: yaml.Node) -> Mark:
    start, end = node.start_mark, node.end_mark
    length = end.column - start.column if end.line == start.line else 1
    return Mark(start.line + 1, start.column + 1, max(1, length))


def _number(text: str, kind: str) -> int | float:
    """As YAML 1.1 reads it: 0644 is 420 and 12:30 is 750; the traps' messages tell."""
    bare = text.replace("_", "")
    sign = -1 if bare.startswith("-") else 1
    digits = bare.lstrip("+-")
    if ":" in digits:
        total = 0.0
        for part in digits.split(":"):
            total = total * 60 + float(part)
        return sign * (int(total) if kind == "int" else total)
    if kind == "float":
        special = digits.lower()
        if special in (".inf", ".nan"):
            return sign * float(special[1:])
        return sign * float(digits)
    if digits.startswith("0b"):
        return sign * int(digits[2:], 2)
    if digits.startswith("0x"):
        return sign * int(digits[2:], 16)
    if digits.startswith("0") and len(digits) > 1:
        return sign * int(digits[1:], 8)
    # int() of a very long literal is refused by Python; no number of this language has more digits.
    return sign * int(digits[:4000])
