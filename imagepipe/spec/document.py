"""Read YAML text into plain values, with the position of every key and value.

PyYAML's C parser reads the text. The values are built here from its nodes, because its own constructor loses positions,
keeps the last of two equal keys, and expands aliases without a limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml

from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem
from imagepipe.regular_files import broken_link
from imagepipe.spec.yaml_errors import explain_yaml_error

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # a PyYAML that was built without libyaml: slower, the same result
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

KeyPath = tuple[str | int, ...]

MAX_NODES = 100_000
"""Largest number of values in a document, aliases expanded; the largest real spec known has fewer than 2,000."""
MAX_DEPTH = 64
MAX_BYTES = 4 * 1024 * 1024
MAX_EXCERPT = 500
"""Characters of a line that are shown. A problem further right has no excerpt."""
MAX_CARET = 60
_SUSPECT = 1000
"""Number of brackets, or columns of indentation, above which a file's depth is checked before its tree is built."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A position. Line and column are 1-based; length is in characters of the first line."""

    line: int
    column: int
    length: int
    last: int = 0
    """Last line; 0 if it has one line."""


@dataclass(slots=True)
class Document:
    """One YAML document of a file."""

    file: str
    lines: list[str]
    value: Any = None
    values: dict[KeyPath, Mark] = field(default_factory=dict)
    keys: dict[KeyPath, Mark] = field(default_factory=dict)
    plain: dict[KeyPath, str] = field(default_factory=dict)
    """Source text of plain scalars that YAML 1.1 does not read as text."""
    problems: list[Problem] = field(default_factory=list)
    start: int = 1

    def mark(self, path: KeyPath, *, key: bool = False) -> Mark:
        """Return the position of a value (or of its key); if it is not in the file, that of the value around it."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.values and path:
            path = path[:-1]
        return self.values.get(path) or Mark(self.start, 1, 1)

    def problem(
        self,
        path: KeyPath,
        message: str,
        *,
        key: bool = False,
        hint: str | None = None,
        severity: str = "error",
    ) -> Problem:
        """Return a problem at a path of this document, with its excerpt."""
        return self.at(self.mark(path, key=key), message, path=path, hint=hint, severity=severity)

    def at(
        self, mark: Mark, message: str, *, path: KeyPath = (), hint: str | None = None, severity: str = "error"
    ) -> Problem:
        """Return a problem at a position."""
        line = self.lines[mark.line - 1] if 0 < mark.line <= len(self.lines) else ""
        excerpt = line[:MAX_EXCERPT] if mark.column <= MAX_EXCERPT else ""
        return Problem(
            file=self.file,
            line=mark.line,
            column=mark.column,
            message=message,
            path=".".join(str(part) for part in path),
            excerpt=excerpt,
            length=max(1, min(mark.length, len(excerpt) - mark.column + 1, MAX_CARET)),
            hint=hint,
            severity=severity,
        )


def read(file: Path, shown: str) -> str | Problem:
    """Return a file's text, or the reason why it cannot be read."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        link = broken_link(file, "it")
        return Problem(shown, 0, 0, f"cannot be read: {link or error.strerror}")
    if len(raw) > MAX_BYTES:
        return Problem(shown, 0, 0, f"the file is larger than {MAX_BYTES // 2**20} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        return Problem(shown, line, column, f"not UTF-8: byte 0x{error.object[error.start]:02x}")


_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Line breaks, as libyaml counts them."""


def parse(text: str, file: str) -> list[Document]:
    """Return the documents of a file, with their problems. Never raises for bad input."""
    lines = _BREAK.split(text)
    if len(text) > MAX_BYTES:
        return [_broken(file, [], 0, 0, f"the file is larger than {MAX_BYTES // 2**20} MiB")]
    if bad := _UNPRINTABLE.search(text):
        before = _BREAK.split(text[: bad.start()])
        message = f"character {bad.group()!r} is not allowed in YAML"
        return [_broken(file, lines, len(before), len(before[-1]) + 1, message)]
    documents: list[Document] = []
    loader = _Loader(text)
    try:
        if _may_be_deep(text, lines) and (line := _line_too_deep(text)):
            return [_broken(file, lines, line, 1, f"nested deeper than {MAX_DEPTH} levels")]
        while loader.check_node():
            if (node := loader.get_node()) is not None:
                documents.append(_Builder(file, lines).document(node))
    except yaml.MarkedYAMLError as error:
        documents.append(_from_yaml_error(error, file, lines))
    except (RecursionError, ValueError) as error:  # ValueError: a character that libyaml's reader refuses
        documents.append(_broken(file, lines, 0, 0, f"not YAML: {error}"))
    finally:
        loader.dispose()
    return documents


def _may_be_deep(text: str, lines: list[str]) -> bool:
    """Return whether the tree may be so deep that libyaml's recursive composer would overflow its stack and crash."""
    if text.count("[") + text.count("{") > _SUSPECT:
        return True
    return any(
        len(line) > _SUSPECT and (line[:_SUSPECT].isspace() or line.count("- ") + line.count("? ") > _SUSPECT // 2)
        for line in lines
    )


def _line_too_deep(text: str) -> int | None:
    """Return the line where the nesting exceeds the limit. Reads events, which needs no stack."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                assert event.start_mark is not None
                return event.start_mark.line + 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def _broken(file: str, lines: list[str], line: int, column: int, message: str) -> Document:
    document = Document(file, lines)
    document.problems.append(document.at(Mark(line, column, 1), message))
    return document


def _from_yaml_error(error: yaml.MarkedYAMLError, file: str, lines: list[str]) -> Document:
    if "maximum nesting depth" in str(error):  # a newer libyaml has a limit of its own
        line = error.context_mark.line + 1 if error.context_mark else 0
        return _broken(file, lines, line, 1 if line else 0, f"nested deeper than {MAX_DEPTH} levels")
    is_unclosed = "quoted scalar" in (error.context or "") and "end of stream" in (error.problem or "")
    is_above = "could not find expected ':'" in (error.problem or "")  # the line that lacks it, not the one after it
    mark = (error.context_mark if is_unclosed or is_above else None) or error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    while line > 1 and (line > len(lines) or not lines[line - 1].strip()):  # blank end of file
        line -= 1
        column = len(lines[line - 1].rstrip()) + 1 if line <= len(lines) else 1
    message, hint = explain_yaml_error(error, lines, line, column)
    document = Document(file, lines)
    document.problems.append(document.at(Mark(line, column, 1), message, hint=hint))
    return document


MAX_NUMBER = 40
_SCALAR_TAGS = frozenset({"str", "null", "bool", "int", "float", "timestamp"})
_COLLECTION_TAGS = frozenset({"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"})
_BOOLS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}


class _Builder:
    """Builds the values of a document from its nodes."""

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
            mark = stop.mark or self.result.mark(stop.path[:1], key=True)
            self.result.problems.append(self.result.at(mark, str(stop), path=stop.path[:1]))
        return self.result

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MAX_NODES:
            raise _TooMuch(f"more than {MAX_NODES:,} values, aliases expanded", path)
        if len(path) > MAX_DEPTH:
            raise _TooMuch(f"nested deeper than {MAX_DEPTH} levels", path, _mark(node))
        self.result.values[path] = _mark(node)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if id(node) in self.open:
            raise _TooMuch("an alias contains itself", path, _mark(node))
        if (template := self.unquoted_template(node)) is not None:
            message = f'a value that starts with a brace must be quoted: "{template}"'
            self.result.problems.append(self.result.at(_mark(node), message, path=path))
            return template
        if node.tag not in _COLLECTION_TAGS:
            self.result.problems.append(self.foreign(node, path))
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, yaml.MappingNode)
            return self.mapping(node, path)
        finally:
            self.open.discard(id(node))

    def unquoted_template(self, node: yaml.Node) -> str | None:
        """Return the text of an unquoted `{{ var.x }}`, which YAML reads as a mapping in a mapping."""
        start, end = node.start_mark, node.end_mark
        if start.line != end.line or not isinstance(node, yaml.MappingNode) or not node.flow_style:
            return None
        text = self.result.lines[start.line][start.column : end.column]
        return text if text.startswith("{{") and text.endswith("}}") else None

    def item_inside(self, node: yaml.ScalarNode) -> int | None:
        """Return the line in an unquoted string that starts with a dash: an item that is indented too far."""
        for number in range(node.start_mark.line + 1, node.end_mark.line + (node.end_mark.column > 0)):
            if self.result.lines[number].lstrip().startswith("- "):
                return number + 1
        return None

    def foreign(self, node: yaml.Node, path: KeyPath) -> Problem:
        return self.result.at(_mark(node), f"tag '{node.tag}' is not part of this language", path=path)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        built: dict[str, Any] = {}
        first: dict[str, Mark] = {}
        for key_node, value_node in self.pairs(node, path):
            key = self.key(key_node, path)
            if key is None:
                continue
            mark = _mark(key_node)
            if key in first:
                message = f"duplicate key '{key}'; it is already in line {first[key].line}"
                self.result.problems.append(self.result.at(mark, message, path=(*path, key)))
                continue
            first[key] = mark
            self.result.keys[(*path, key)] = mark
            built[key] = self.build(value_node, (*path, key))
        return built

    def pairs(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[yaml.Node, yaml.Node]]:
        """Yield the pairs of a mapping. Pairs from `<<` come last, and only for keys that the mapping does not have."""
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

    def key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if isinstance(node, yaml.ScalarNode):
            # `on:` and `no:` are booleans in YAML 1.1; as keys they are meant as text.
            return str(node.value)
        self.result.problems.append(self.result.at(_mark(node), "a key must be a string", path=path))
        return None

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text: str = node.value
        if kind not in _SCALAR_TAGS:
            self.result.problems.append(self.foreign(node, path))
            return text
        if not node.style and (line := self.item_inside(node)):
            message = (
                f"this string continues in line {line}, which looks like an item of a list: start all items of a list"
                " in the same column, or quote the string"
            )
            self.result.problems.append(self.result.at(_mark(node), message, path=path))
        # Only a plain scalar (no style) can be a number, and nobody writes one so long by hand.
        if kind == "str" or node.style or len(text) > MAX_NUMBER:
            return text
        if kind == "null":
            return None
        if kind == "timestamp":
            return text
        self.result.plain[path] = text
        try:
            return _BOOLS[text.lower()] if kind == "bool" else _number(text, kind)
        except (KeyError, ValueError, OverflowError):  # such as `!!int abc` or `0x_`
            del self.result.plain[path]
            return text


class _TooMuch(Exception):
    """The document exceeds a limit that no spec written by hand reaches."""

    def __init__(self, message: str, path: KeyPath, mark: Mark | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.mark = mark


def _mark(node: yaml.Node) -> Mark:
    start, end = node.start_mark, node.end_mark
    length = end.column - start.column if end.line == start.line else 1
    last = end.line + 1 if end.column else end.line  # a block ends at the start of the line after it
    return Mark(start.line + 1, start.column + 1, max(1, length), max(start.line + 1, last))


def _number(text: str, kind: str) -> int | float:
    """Read a number as YAML 1.1 does: 0644 is 420 and 12:30 is 750. `explain.trap_text` warns the user about these."""
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
    return sign * int(digits)
