"""Slips of the hand: change a text as a typing mistake, a cut or a wrong paste would."""

from __future__ import annotations

import json
import random
from typing import Any

TYPED = "{}[]:,'\"&*!|>%@` \t-?#0\u2028"
OTHER_VALUES: tuple[Any, ...] = (None, True, -1, 3.5, "", "\x00", "x" * 300, [], ["a", 1], {}, {"a": {"b": 1}})


def slipped(text: str, draw: random.Random) -> str:
    """Return the text with one slip: a letter lost or added; a line doubled, lost or indented; or the end cut off."""
    lines = text.split("\n")
    at = draw.randrange(len(lines))
    line = lines[at]
    match draw.choice(["drop", "double", "insert", "lose", "indent", "cut"]):
        case "drop" if line:
            column = draw.randrange(len(line))
            lines[at] = line[:column] + line[column + 1 :]
        case "double":
            lines.insert(at, line)
        case "insert":
            column = draw.randint(0, len(line))
            lines[at] = line[:column] + draw.choice(TYPED) + line[column:]
        case "lose":
            del lines[at]
        case "indent":
            lines[at] = " " + line
        case _:
            del lines[at + 1 :]
    return "\n".join(lines)


def with_another_value(lines: list[str], draw: random.Random) -> str:
    """Return the JSON lines with one value of one line changed."""
    lines = list(lines)
    at = draw.randrange(len(lines))
    record = json.loads(lines[at])
    record[draw.choice(sorted(record))] = draw.choice(OTHER_VALUES)
    lines[at] = json.dumps(record)
    return "".join(f"{line}\n" for line in lines)
