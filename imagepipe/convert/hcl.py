"""Read HCL2: bodies, expressions and string templates, with the line of every node.

A parser of its own, because python-hcl2 loses quotes in heredocs, needs seconds for its first file and writes a cache
into site-packages (docs/explanation/dependencies.md).
Source of the grammar: "HCL Native Syntax Specification", 2.0.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn

from imagepipe.convert.syntax import (
    Attribute,
    Binary,
    Block,
    Body,
    Call,
    Conditional,
    Expression,
    For,
    GetAttribute,
    Index,
    ListOf,
    Literal,
    Name,
    ObjectOf,
    Place,
    Splat,
    TemplateFor,
    TemplateIf,
    TemplateString,
    Unary,
)
from imagepipe.dataclass import dataclass
from imagepipe.errors import Problem, SpecError

MAX_DEPTH = 60
"""Depth of blocks and expressions in one another; Python allows about 1,000 calls, and a level needs six."""
MAX_EXCERPT = 200

_BLANK = re.compile(r"(?:[ \t\r]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_BLANK_LINES = re.compile(r"(?:[ \t\r\n]+|#[^\n]*|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_IDENTIFIER = re.compile(r"[^\W\d][\w-]*")
_NUMBER = re.compile(r"\d+(?P<fraction>\.\d+)?(?P<exponent>[eE][+-]?\d+)?")
_HEREDOC = re.compile(r"<<(?P<indented>-?)(?P<mark>[^\W\d][\w-]*)[ \t\r]*\n")
_PLAIN = {True: re.compile(r'[^"\\$%\n]+'), False: re.compile(r"[^$%]+")}
"""Text without a meaning of its own: in quotes, and in a heredoc."""
_OPERATOR = re.compile(r"\|\||&&|==|!=|<=|>=|[<>+\-*/%]")
_PRECEDENCE = {
    "||": 1,
    "&&": 2,
    "==": 3,
    "!=": 3,
    "<": 4,
    ">": 4,
    "<=": 4,
    ">=": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "%": 6,
}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_CONSTANTS = {"true": True, "false": False, "null": None}


def parse_hcl(text: str, file: str) -> Body:
    """Return the body of a file. Raises SpecError with the position of a syntax error."""
    return _Parser(text, file).body(is_file=True)


def parse_template(text: str, at: Place) -> Expression:
    """Return a string with `${…}` as an expression, as in a template file. Raises SpecError."""
    return _Parser(text, at.file, first_line=max(1, at.line)).whole_template()


def syntax_error(file: str, line: int, column: int, message: str, lines: list[str]) -> SpecError:
    """Return the error for a position in a template, with its excerpt."""
    excerpt = lines[line - 1] if 0 < line <= len(lines) else ""
    shown = excerpt.rstrip("\r") if len(excerpt) <= MAX_EXCERPT and excerpt.isprintable() else ""
    return SpecError([Problem(file, line, column, message, excerpt=shown)])


@dataclass(slots=True)
class _Directive:
    """`%{ … }` in a string, before the directives are nested."""

    word: str
    condition: Expression | None = None
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class _Interpolation:
    """`${ … }` in a string."""

    value: Expression


class _Parser:
    """Reads one text from left to right; `at` is the position of the next character."""

    def __init__(self, text: str, file: str, *, first_line: int = 1) -> None:
        self.text = text
        self.file = file
        self.position = 0
        self.depth = 0
        self.skips_newlines = False
        self.first_line = first_line
        self.starts = [0, *(found.end() for found in re.finditer("\n", text))]

    # Positions and errors

    def place(self, position: int | None = None) -> Place:
        """Return the line of a position; of the next character if none is given."""
        offset = self.position if position is None else position
        return Place(self.file, bisect.bisect_right(self.starts, offset) - 1 + self.first_line)

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        offset = min(self.position if position is None else position, len(self.text))
        line = bisect.bisect_right(self.starts, offset) - 1
        column = offset - self.starts[line] + 1
        lines = [""] * (self.first_line - 1) + self.text.split("\n")
        raise syntax_error(self.file, line + self.first_line, column, message, lines)

    def unexpected(self, wanted: str) -> NoReturn:
        if self.position >= len(self.text):
            self.fail(f"not HCL: {wanted} is missing at the end of the file")
        found = self.text[self.position]
        self.fail(
            f"not HCL: {wanted} is expected here, not {'the end of the line' if found == chr(10) else repr(found)}"
        )

    @contextmanager
    def deeper(self) -> Iterator[None]:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels")
        yield
        self.depth -= 1

    @contextmanager
    def newlines(self, *, skipped: bool) -> Iterator[None]:
        before, self.skips_newlines = self.skips_newlines, skipped
        yield
        self.skips_newlines = before

    # Tokens

    def blank(self) -> None:
        pattern = _BLANK_LINES if self.skips_newlines else _BLANK
        if found := pattern.match(self.text, self.position):
            self.position = found.end()

    def blank_lines(self) -> None:
        if found := _BLANK_LINES.match(self.text, self.position):
            self.position = found.end()

    def peek(self, token: str) -> bool:
        self.blank()
        return self.text.startswith(token, self.position)

    def take(self, token: str) -> bool:
        if not self.peek(token):
            return False
        self.position += len(token)
        return True

    def want(self, token: str) -> None:
        if not self.take(token):
            self.unexpected(repr(token))

    def identifier(self) -> str | None:
        self.blank()
        found = _IDENTIFIER.match(self.text, self.position)
        if found is None:
            return None
        self.position = found.end()
        return found.group()

    def word(self, word: str) -> bool:
        """Take an identifier if it is this word."""
        before = self.position
        if self.identifier() == word:
            return True
        self.position = before
        return False

    # Bodies

    def body(self, *, is_file: bool = False) -> Body:
        at = self.place()
        items: list[Attribute | Block] = []
        names: set[str] = set()
        with self.deeper():
            while True:
                self.blank_lines()
                if self.position >= len(self.text):
                    if is_file:
                        return Body(at, tuple(items))
                    self.fail(f"not HCL: the block of line {at.line} has no }} at its end")
                if not is_file and self.text[self.position] == "}":
                    self.position += 1
                    return Body(at, tuple(items))
                item = self.item()
                if isinstance(item, Attribute):
                    if item.name in names:
                        self.fail(f"attribute '{item.name}' is set twice in one block")
                    names.add(item.name)
                items.append(item)

    def item(self) -> Attribute | Block:
        at = self.place()
        name = self.identifier()
        if name is None:
            self.unexpected("an attribute or a block")
        if self.peek("=") and not self.peek("=="):
            self.want("=")
            with self.newlines(skipped=False):
                value = self.expression()
            self.blank()
            if self.position < len(self.text) and self.text[self.position] not in "\n}":
                self.unexpected("the end of the line")
            return Attribute(at, name, value)
        labels: list[str] = []
        while not self.take("{"):
            if self.peek('"'):
                label = self.quoted()
                if not isinstance(label, Literal):
                    self.fail("the label of a block cannot have an interpolation")
                labels.append(str(label.value))
            elif (word := self.identifier()) is not None:
                labels.append(word)
            else:
                self.unexpected(f"= or {{ after '{name}'")
        with self.newlines(skipped=False):
            body = self.body()
        return Block(at, name, tuple(labels), replace(body, at=at))

    # Expressions

    def expression(self) -> Expression:
        with self.deeper():
            value = self.binary(1)
            if self.take("?"):
                self._newlines_in_brackets()
                then = self.expression()
                self._newlines_in_brackets()
                self.want(":")
                self._newlines_in_brackets()
                value = Conditional(value.at, value, then, self.expression())
        return value

    def _newlines_in_brackets(self) -> None:
        if self.skips_newlines:
            self.blank_lines()

    def binary(self, lowest: int) -> Expression:
        left = self.unary()
        while True:
            self.blank()
            found = _OPERATOR.match(self.text, self.position)
            if found is None or _PRECEDENCE[found.group()] < lowest:
                return left
            if self.text.startswith("~}", self.position):
                return left
            self.position = found.end()
            right = self.binary(_PRECEDENCE[found.group()] + 1)
            left = Binary(left.at, found.group(), left, right)

    def unary(self) -> Expression:
        self.blank()
        at = self.place()
        for operator in ("-", "!"):
            if self.text.startswith(operator, self.position) and not self.text.startswith("!=", self.position):
                self.position += 1
                with self.deeper():
                    return Unary(at, operator, self.unary())
        return self.postfix()

    def postfix(self) -> Expression:
        value = self.primary()
        while True:
            self.blank()
            at = self.place()
            if self.text.startswith("...", self.position):
                return value
            if self.text.startswith(".", self.position):
                self.position += 1
                if self.take("*"):
                    value = Splat(at, value, self._names())
                elif digits := re.compile(r"\d+").match(self.text, self.position):
                    self.position = digits.end()
                    value = Index(at, value, Literal(at, _int(digits.group())))
                elif name := self.identifier():
                    value = GetAttribute(at, value, name)
                else:
                    self.unexpected("a name")
            elif self.text.startswith("[", self.position):
                self.position += 1
                if self.text.startswith("*]", self.position):
                    self.position += 2
                    value = Splat(at, value, self._names())
                    continue
                with self.newlines(skipped=True):
                    key = self.expression()
                    self.want("]")
                value = Index(at, value, key)
            else:
                return value

    def _names(self) -> tuple[str, ...]:
        names = []
        while self.text.startswith(".", self.position) and not self.text.startswith("...", self.position):
            self.position += 1
            if (name := self.identifier()) is None:
                self.unexpected("a name")
            names.append(name)
        return tuple(names)

    def primary(self) -> Expression:
        self.blank()
        at = self.place()
        if self.position >= len(self.text):
            self.unexpected("a value")
        character = self.text[self.position]
        if character == '"':
            return self.quoted()
        if character == "<" and (heredoc := _HEREDOC.match(self.text, self.position)):
            return self.heredoc(heredoc)
        if found := _NUMBER.match(self.text, self.position):
            self.position = found.end()
            is_whole = not found["fraction"] and not found["exponent"]
            return Literal(at, _int(found.group()) if is_whole else float(found.group()))
        if character == "(":
            self.position += 1
            with self.newlines(skipped=True):
                value = self.expression()
                self.want(")")
            return value
        if character == "[":
            self.position += 1
            return self.sequence(at)
        if character == "{":
            self.position += 1
            return self.mapping(at)
        name = self.identifier()
        if name is None:
            self.unexpected("a value")
        if self.text.startswith("::", self.position):
            self.position += 2
            name = f"{name}::{self.identifier() or self.unexpected('a name')}"
        if self.text.startswith("(", self.position):
            self.position += 1
            return self.call(at, name)
        return Literal(at, _CONSTANTS[name]) if name in _CONSTANTS else Name(at, name)

    def call(self, at: Place, name: str) -> Call:
        arguments: list[Expression] = []
        expands = False
        with self.newlines(skipped=True):
            while not self.take(")"):
                arguments.append(self.expression())
                if self.take("..."):
                    expands = True
                if not self.take(","):
                    self.want(")")
                    break
        return Call(at, name, tuple(arguments), expands)

    def sequence(self, at: Place) -> Expression:
        items: list[Expression] = []
        with self.newlines(skipped=True):
            if self.word("for"):
                found = self.comprehension(at, is_object=False)
                self.want("]")
                return found
            while not self.take("]"):
                items.append(self.expression())
                if not self.take(","):
                    self.want("]")
                    break
        return ListOf(at, tuple(items))

    def mapping(self, at: Place) -> Expression:
        items: list[tuple[Expression, Expression]] = []
        self.blank_lines()
        start = self.position
        if self.word("for"):
            self.blank()
            if self.text[self.position : self.position + 1] not in ("=", ":"):
                with self.newlines(skipped=True):
                    found = self.comprehension(at, is_object=True)
                    self.want("}")
                return found
            self.position = start
        with self.newlines(skipped=False):
            while True:
                self.blank_lines()
                if self.take("}"):
                    break
                key = self.key()
                if not self.take("=") and not self.take(":"):
                    self.unexpected("= or :")
                self.blank_lines()
                items.append((key, self.expression()))
                self.blank()
                if not self.take(",") and not self.peek("\n") and not self.peek("}"):
                    self.unexpected("a comma, the end of the line or }")
        return ObjectOf(at, tuple(items))

    def key(self) -> Expression:
        at = self.place()
        before = self.position
        if (name := self.identifier()) is not None and (self.peek("=") or self.peek(":")):
            return Literal(at, name)
        self.position = before
        return self.binary(1)

    def comprehension(self, at: Place, *, is_object: bool) -> For:
        names = self.loop_names()
        collection = self.expression()
        self.want(":")
        value = self.expression()
        key = None
        groups = False
        if is_object:
            self.want("=>")
            key, value = value, self.expression()
            groups = self.take("...")
        condition = self.expression() if self.word("if") else None
        return For(at, names, collection, key, value, condition, groups)

    def loop_names(self) -> tuple[str, ...]:
        names = [self.identifier() or self.unexpected("a name")]
        if self.take(","):
            names.append(self.identifier() or self.unexpected("a name"))
        if not self.word("in"):
            self.unexpected("'in'")
        return tuple(names)

    # Strings

    def quoted(self) -> Expression:
        at = self.place()
        self.position += 1
        parts = self.parts(is_quoted=True)
        return self.nested(at, parts)

    def whole_template(self) -> Expression:
        at = self.place()
        return self.nested(at, self.parts(is_quoted=False))

    def heredoc(self, found: re.Match[str]) -> Expression:
        at = self.place()
        mark = found["mark"]
        end = re.compile(rf"^[ \t]*{re.escape(mark)}[ \t\r]*$", re.MULTILINE).search(self.text, found.end())
        if end is None:
            self.fail(f"not HCL: no line {mark} ends this text")
        content = self.text[found.end() : end.start()]
        self.position = end.start() + len(end.group().rstrip())
        if found["indented"]:
            content = _without_indentation(content)
        content = content.replace("\r\n", "\n")
        inner = _Parser(content, self.file, first_line=at.line + 1)
        inner.depth = self.depth
        value = inner.whole_template()
        return replace(value, at=at)

    def parts(self, *, is_quoted: bool) -> list[str | _Interpolation | _Directive]:
        """Return the parts of a string, up to its closing quote or to the end of the text."""
        start = self.position
        parts: list[str | _Interpolation | _Directive] = []
        literal: list[str] = []
        strips = False

        def close() -> None:
            nonlocal strips
            text = "".join(literal)
            literal.clear()
            if strips:
                text = text.lstrip()
            strips = False
            if text:
                parts.append(text)

        while True:
            if found := _PLAIN[is_quoted].match(self.text, self.position):
                literal.append(found.group())
                self.position = found.end()
            if self.position >= len(self.text):
                if is_quoted:
                    self.fail("not HCL: this string has no closing quote", start - 1)
                close()
                return parts
            rest = self.text[self.position : self.position + 3]
            if is_quoted and rest[0] == '"':
                self.position += 1
                close()
                return parts
            if is_quoted and rest[0] == "\n":
                self.fail("not HCL: a string in quotes ends in its line; write \\n, or a heredoc", start - 1)
            if is_quoted and rest[0] == "\\":
                literal.append(self.escape())
            elif rest in ("$${", "%%{"):
                literal.append(rest[1:])
                self.position += 3
            elif rest[:2] in ("${", "%{"):
                self.position += 2
                if self.text.startswith("~", self.position):
                    self.position += 1
                    literal[:] = ["".join(literal).rstrip()]
                close()
                with self.newlines(skipped=True):
                    parts.append(_Interpolation(self.expression()) if rest[0] == "$" else self.directive())
                    strips = self.take("~}")
                    if not strips:
                        self.want("}")
            else:
                literal.append(rest[0])
                self.position += 1

    def escape(self) -> str:
        character = self.text[self.position + 1 : self.position + 2]
        if character in _ESCAPES:
            self.position += 2
            return _ESCAPES[character]
        digits = {"u": 4, "U": 8}.get(character)
        number = self.text[self.position + 2 : self.position + 2 + (digits or 0)]
        if digits is None or not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", number):
            self.fail(f"not HCL: unknown escape '\\{character}' in a string")
        code = int(number, 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            self.fail(f"not HCL: '\\{character}{number}' is not a character")
        self.position += 2 + digits
        return chr(code)

    def directive(self) -> _Directive:
        word = self.identifier()
        if word == "if":
            return _Directive("if", self.expression())
        if word == "for":
            names = self.loop_names()
            return _Directive("for", self.expression(), names)
        if word not in ("else", "endif", "endfor"):
            self.unexpected("if, else, endif, for or endfor")
        return _Directive(word)

    def nested(self, at: Place, parts: list[str | _Interpolation | _Directive]) -> Expression:
        """Return a string's parts as an expression, its directives nested."""
        if not parts:
            return Literal(at, "")
        if len(parts) == 1 and isinstance(parts[0], str):
            return Literal(at, parts[0])
        remaining = iter(parts)
        found, ended = self._until(at, remaining, (), 0)
        assert ended == ""
        return found

    def _until(
        self, at: Place, parts: Iterator[str | _Interpolation | _Directive], ends: tuple[str, ...], depth: int
    ) -> tuple[TemplateString, str]:
        if depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels")
        found: list[str | Expression | TemplateIf | TemplateFor] = []
        for part in parts:
            if isinstance(part, str):
                found.append(part)
            elif isinstance(part, _Interpolation):
                found.append(part.value)
            elif part.word in ends:
                return TemplateString(at, tuple(found)), part.word
            elif part.word == "if" and part.condition is not None:
                then, ended = self._until(at, parts, ("else", "endif"), depth + 1)
                otherwise = TemplateString(at, ())
                if ended == "else":
                    otherwise, _ = self._until(at, parts, ("endif",), depth + 1)
                found.append(TemplateIf(part.condition, then, otherwise))
            elif part.word == "for" and part.condition is not None:
                body, _ = self._until(at, parts, ("endfor",), depth + 1)
                found.append(TemplateFor(part.names, part.condition, body))
            else:
                self.fail(f"not HCL: %{{ {part.word} }} has no beginning")
        if ends:
            self.fail(f"not HCL: %{{ {ends[-1]} }} is missing")
        return TemplateString(at, tuple(found)), ""


def _without_indentation(content: str) -> str:
    lines = content.split("\n")
    filled = [line for line in lines[:-1] if line.strip()]
    width = min((len(line) - len(line.lstrip(" \t")) for line in filled), default=0)
    return "\n".join(line[width:] if line[:width].isspace() or not width else line.lstrip(" \t") for line in lines)


def _int(digits: str) -> int | float:
    """Return a whole number; as a float if it is so long that Python would refuse to convert it back."""
    return int(digits) if len(digits) <= 30 else float(digits)
