"""Messages for text that is not YAML. The parser's own texts name its state, and not the line that is out of line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import yaml

from imagepipe.dataclass import dataclass

_KEY = re.compile(r"""("[^"]*"|'[^']*'|[^\s#'"\[{&*!|>%@`-][^#]*?|-[^\s][^#]*?):(\s|$)""")
_TEXT_FOLLOWS = re.compile(r"(^|[\s:-])[|>][-+0-9]*\s*(#.*)?$")
_COMMENT = re.compile(r"(^|\s)#.*$")
_BLOCK_PROBLEMS = (
    "did not find expected key",
    "did not find expected '-' indicator",
    "mapping values are not allowed",
    "could not find expected ':'",
    "did not find expected <document start>",
    # PyYAML without libyaml
    "expected <block end>",
    "expected '<document start>'",
)
"""Problems that a line in the wrong column causes, among other mistakes."""


@dataclass(frozen=True, slots=True)
class _Block:
    """A list or a mapping that is still open, one entry in each line."""

    kind: Literal["list", "mapping"]
    column: int
    """Column where its entries start, 0-based."""
    line: int
    """Line of its first entry, 1-based."""


def explain_yaml_error(
    error: yaml.MarkedYAMLError, lines: Sequence[str], line: int, column: int
) -> tuple[str, str | None]:
    """Return the message and the hint for a parser's error at a position (1-based; 0 for none)."""
    problem, context = error.problem or "", error.context or ""
    excerpt = lines[line - 1] if 0 < line <= len(lines) else ""
    start = error.context_mark.line + 1 if error.context_mark else line
    if "\t" in excerpt[: max(column, 1)]:
        return _own_text(error), "YAML is indented with spaces, not tabs"
    if problem.startswith(_BLOCK_PROBLEMS) and (found := _out_of_line(lines, line)):
        return f"not YAML: {found[0]}", found[1]
    if "{{" in excerpt or "{%" in excerpt:
        return _own_text(error), 'a value that starts with a brace must be quoted: "{{ var.x }}"'
    if "flow sequence" in context:
        return f"not YAML: the list that [ opens in line {start} has no ], or an item has no comma after it", None
    if "flow mapping" in context:
        return f"not YAML: the mapping that {{ opens in line {start} has no }}, or a pair has no comma after it", None
    if "quoted scalar" in context and "end of stream" in problem:
        return (
            "not YAML: this quote is not closed",
            "a string that contains a colon and a space must be quoted as a whole, or written below a |"
            if re.search(r"\s.*: ", excerpt[: max(column - 1, 0)].lstrip(" -"))
            else None,
        )
    return _own_text(error), _hint(problem, context)


def _own_text(error: yaml.MarkedYAMLError) -> str:
    text = f"not YAML: {error.problem or error.context or 'cannot be read'}"
    if error.context and error.problem and error.context_mark:
        text += f" ({error.context}, line {error.context_mark.line + 1})"
    return text


def _hint(problem: str, context: str) -> str | None:
    if "mapping values are not allowed" in problem:
        return "a string that contains a colon and a space must be quoted as a whole, or written below a |"
    if "while parsing a block mapping" in context:
        return "keys of one mapping start in the same column, and so do the lines of a text below a |"
    if "could not find expected ':'" in problem:
        return (
            "a line starts with a key and a colon (key: value) or with a dash (- item);"
            " a line of a text below a | is indented more than the key above it"
        )
    if "found character that cannot start any token" in problem:
        return "a string that starts with @, ` or % must be quoted"
    if "undefined alias" in problem:
        return "a string that starts with * must be quoted; an alias needs its anchor, &name, before it"
    return None


def _out_of_line(lines: Sequence[str], line: int) -> tuple[str, str | None] | None:
    """Return the message and the hint for a line that starts in a column where no entry can start; otherwise None."""
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    column = len(text) - len(text.lstrip(" "))
    blocks, is_open = _open_blocks(lines[: line - 1])
    if is_open or not text.strip():
        return None
    is_item = _is_item(text[column:])
    if not is_item and not _KEY.match(text[column:]):
        if re.match(r"-[^\s-]", text[column:]):
            return "this item of a list has no space after its dash", f"write - {text[column + 1 :].strip()[:60]}"
        return None
    if not is_item and re.match(r"-[^\s-]", text[column:]) and _nearest(blocks, "list", column):
        return "this item of a list has no space after its dash", f"write - {text[column + 1 :].strip()[:60]}"
    kind: Literal["list", "mapping"] = "list" if is_item else "mapping"
    meant = _nearest(blocks, kind, column)
    if meant is not None and meant.column == column:
        return None
    if meant is None:
        if not blocks:
            return None
        other = blocks[-1]
        if kind == "list":
            return f"this line is an item of a list, but line {other.line} started a mapping of keys and values", None
        return f"this line has a key, but line {other.line} started a list", "start the items of a list with a dash"
    entry, these = ("item", "items of the list") if is_item else ("key", "keys of the mapping")
    return (
        f"this {entry} is out of line: it starts in column {column + 1}; the {these} from line {meant.line} start in"
        f" column {meant.column + 1}",
        None,
    )


def _nearest(blocks: Sequence[_Block], kind: str, column: int) -> _Block | None:
    """Return the open block of this kind whose column is nearest; the innermost of two."""
    of_kind = [block for block in reversed(blocks) if block.kind == kind]
    return min(of_kind, key=lambda block: abs(block.column - column), default=None)


def _open_blocks(lines: Sequence[str]) -> tuple[list[_Block], bool]:
    """Return the blocks that are open after these lines, outermost first, and whether the last line opens another."""
    blocks: list[_Block] = []
    is_open = True
    text_column: int | None = None
    for number, line in enumerate(lines, start=1):
        column = len(line) - len(line.lstrip(" "))
        rest = _COMMENT.sub("", line[column:]).rstrip()
        if not rest:
            continue
        if text_column is not None and column > text_column:
            continue
        text_column = None
        if rest in ("---", "..."):
            blocks, is_open = [], True
            continue
        blocks = [block for block in blocks if block.column <= column]
        while _is_item(rest):
            _add(blocks, _Block("list", column, number))
            spaces = len(rest[1:]) - len(rest[1:].lstrip(" "))
            column, rest = column + 1 + spaces, rest[1 + spaces :]
        if _KEY.match(rest):
            _add(blocks, _Block("mapping", column, number))
        is_open = not rest or rest.endswith(":")
        if _TEXT_FOLLOWS.search(rest):
            text_column = blocks[-1].column if blocks else 0
    return blocks, is_open


def _is_item(text: str) -> bool:
    return text == "-" or text.startswith("- ")


def _add(blocks: list[_Block], block: _Block) -> None:
    if all((each.kind, each.column) != (block.kind, block.column) for each in blocks):
        blocks.append(block)
