"""Read JSON into the syntax tree of templates, with the line of every value."""

from __future__ import annotations

import re
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import NoReturn

from imagepipe.convert.hcl import MAX_DEPTH, syntax_error
from imagepipe.convert.syntax import Expression, ListOf, Literal, ObjectOf, Place

_BLANK = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?P<fraction>\.\d+)?(?P<exponent>[eE][+-]?\d+)?")
_CONSTANT = re.compile(r"true|false|null")
_VALUES = {"true": True, "false": False, "null": None}


def parse_json(text: str, file: str) -> Expression:
    """Return the value of a JSON file. Raises SpecError with the position of a syntax error."""
    return _Reader(text, file).whole()


class _Reader:
    """Reads one text from left to right."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.position = 0
        self.line = 1
        self.counted = 0

    def place(self) -> Place:
        self.line += self.text.count("\n", self.counted, self.position)
        self.counted = self.position
        return Place(self.file, self.line)

    def fail(self, message: str) -> NoReturn:
        before = self.text[: self.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise syntax_error(self.file, line, column, f"not JSON: {message}", self.text.split("\n"))

    def peek(self) -> str:
        found = _BLANK.match(self.text, self.position)
        assert found is not None
        self.position = found.end()
        return self.text[self.position : self.position + 1]

    def whole(self) -> Expression:
        value = self.value(0)
        if self.peek():
            self.fail("the file continues after the end of the value")
        return value

    def value(self, depth: int) -> Expression:
        first = self.peek()
        at = self.place()
        if depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels")
        if first == "{":
            return self.mapping(at, depth)
        if first == "[":
            return self.sequence(at, depth)
        if first == '"':
            return Literal(at, self.string())
        if found := _CONSTANT.match(self.text, self.position):
            self.position = found.end()
            return Literal(at, _VALUES[found.group()])
        if found := _NUMBER.match(self.text, self.position):
            self.position = found.end()
            is_whole = not found["fraction"] and not found["exponent"] and len(found.group()) < 30
            return Literal(at, int(found.group()) if is_whole else float(found.group()))
        return self.fail(f"a value is expected here, not {first!r}" if first else "the file ends too early")

    def string(self) -> str:
        try:
            text, self.position = scanstring(self.text, self.position + 1, True)
            text.encode()
        except JSONDecodeError as error:
            self.position = error.pos
            self.fail(error.msg[:1].lower() + error.msg[1:])
        except UnicodeEncodeError:
            self.fail("the string has half of a surrogate pair")
        found: str = text
        return found

    def sequence(self, at: Place, depth: int) -> Expression:
        self.position += 1
        items: list[Expression] = []
        if self.peek() == "]":
            self.position += 1
            return ListOf(at, ())
        while True:
            items.append(self.value(depth + 1))
            if self.end_of_item("]"):
                return ListOf(at, tuple(items))

    def mapping(self, at: Place, depth: int) -> Expression:
        self.position += 1
        items: list[tuple[Expression, Expression]] = []
        if self.peek() == "}":
            self.position += 1
            return ObjectOf(at, ())
        while True:
            if (first := self.peek()) != '"':
                self.fail("a key in double quotes is expected here" if first else "the file ends too early")
            key = Literal(self.place(), self.string())
            if self.peek() != ":":
                self.fail("a colon is expected here")
            self.position += 1
            items.append((key, self.value(depth + 1)))
            if self.end_of_item("}"):
                return ObjectOf(at, tuple(items))

    def end_of_item(self, closing: str) -> bool:
        """Take a comma or the closing bracket; return whether it was the bracket."""
        found = self.peek()
        if found not in (",", closing):
            self.fail(f"a comma or {closing} is expected here" if found else "the file ends too early")
        self.position += 1
        return found == closing
