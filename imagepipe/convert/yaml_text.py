"""Write a spec as readable YAML: short lists in one line, scripts as blocks, quotes only where needed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from imagepipe.convert.values import Value

WIDTH = 100
_PLAIN = re.compile(r"[A-Za-z0-9_/.~^+][A-Za-z0-9_/.~^+=@%() *?<>;$'|&\\!-]*")
"""Strings that need no quotes, but for those that YAML reads as something else."""
_PLAIN_IN_LINE = re.compile(r"[A-Za-z0-9_/.^+][A-Za-z0-9_/.~^+=@%() *?<>;$'|\\!-]*")
_NOT_TEXT = re.compile(
    r"~|null|true|false|yes|no|on|off|y|n|[-+]?(0x[0-9a-fA-F_]+|0o?[0-7_]+|0b[01_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?\d+)?"
    r"|\.[0-9_]+([eE][-+]?\d+)?|[0-9][0-9_]*(:[0-5]?\d)+(\.[0-9_]*)?|\.inf|\.nan)|\d{4}-\d\d?-\d\d?.*|[=<.]+",
    re.IGNORECASE,
)
_UNPRINTABLE = re.compile("[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


def comment(text: str) -> str:
    """Return a text as one line of a comment."""
    return "# " + _UNPRINTABLE.sub("?", " ".join(text.split()))


def block_of(value: Value, indentation: int) -> Iterator[str]:
    """Yield the lines of a mapping or a list, at an indentation; a section of a spec is never written in one line."""
    pad = " " * indentation
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entry(f"{pad}{scalar(str(key))}:", item, indentation)
    else:
        for item in value:
            short = in_line(item) if isinstance(item, dict) else None
            if short is not None and indentation + 2 + len(short) <= WIDTH:
                yield f"{pad}- {short}"
            else:
                yield from list_item(item, indentation)


def list_item(item: Value, indentation: int) -> Iterator[str]:
    """Yield the lines of an item of a list."""
    pad = " " * indentation
    if isinstance(item, dict) and item:
        lines = list(block_of(item, indentation + 2))
        yield f"{pad}- {lines[0][indentation + 2 :]}"
        yield from lines[1:]
    else:
        yield from _entry(f"{pad}-", item, indentation)


def _entry(head: str, value: Value, indentation: int) -> Iterator[str]:
    """Yield the lines of a value after its key or dash."""
    is_section = indentation == 0 and isinstance(value, dict)
    if isinstance(value, dict | list) and value:
        short = in_line(value)
        if short is not None and not is_section and len(head) + 1 + len(short) <= WIDTH and not _holds_blocks(value):
            yield f"{head} {short}"
        else:
            yield head
            yield from block_of(value, indentation + 2)
    elif isinstance(value, dict | list):
        yield f"{head} {'{}' if isinstance(value, dict) else '[]'}"
    elif isinstance(value, str) and "\n" in value and (lines := _literal_block(value, indentation + 2)):
        yield f"{head} {lines[0]}"
        yield from lines[1:]
    else:
        yield f"{head} {scalar(value)}"


def _holds_blocks(value: Value) -> bool:
    items = value.values() if isinstance(value, dict) else value
    return any(isinstance(item, dict) and len(item) > 2 for item in items) or len(items) > 8


def in_line(value: Value) -> str | None:
    """Return a value in one line; None if it has a text of several lines."""
    if isinstance(value, dict):
        pairs = [(scalar(str(key), in_line=True), in_line(item)) for key, item in value.items()]
        if any(item is None for _, item in pairs):
            return None
        return "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
    if isinstance(value, list):
        items = [in_line(item) for item in value]
        return None if None in items else "[" + ", ".join(str(item) for item in items) + "]"
    if isinstance(value, str) and "\n" in value:
        return None
    return scalar(value, in_line=True)


def scalar(value: Value, *, in_line: bool = False) -> str:
    """Return a scalar in one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    pattern = _PLAIN_IN_LINE if in_line else _PLAIN
    if pattern.fullmatch(text) and not _NOT_TEXT.fullmatch(text) and not text.endswith(" ") and "{{" not in text:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: _escaped(ord(found.group())), quoted)


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _literal_block(text: str, indentation: int) -> list[str] | None:
    """Return a text below `|`; None if it must be quoted."""
    body = text.rstrip("\n")
    ending = len(text) - len(body)
    lines = body.split("\n")
    if ending > 1 or not body.strip() or "\r" in text or _UNPRINTABLE.search(text) or lines[-1].strip() == "":
        return None
    first = next(line for line in lines if line.strip())
    hint = "2" if first[0] in " \t" or not lines[0].strip() else ""
    pad = " " * indentation
    return [f"|{hint}{'' if ending else '-'}", *(pad + line if line else "" for line in lines)]
