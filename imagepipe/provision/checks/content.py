"""Expected text: in the body of a response, in a file, or in the output of a command."""

from __future__ import annotations

import re

from imagepipe.dataclass import dataclass
from imagepipe.provision.checks.check import CONTENT_BYTES, Mismatch, excerpt


@dataclass(frozen=True, slots=True)
class ExpectedText:
    """The text that is expected somewhere."""

    contains: str | None = None
    matches: str | None = None
    """Regular expression; `^` and `$` match at every line."""
    equals: str | None = None
    """The whole text, without newlines at its end."""

    def __bool__(self) -> bool:
        return (self.contains, self.matches, self.equals) != (None, None, None)

    def compare(self, place: str, content: bytes) -> Mismatch | None:
        """Return the reason why a content is not the expected one; `place` names it in the message."""
        text = content.decode(errors="replace")
        where = f" in its first {CONTENT_BYTES >> 20} MiB" if len(content) > CONTENT_BYTES else ""
        if self.equals is not None and text.rstrip("\n") != self.equals.rstrip("\n"):
            return _mismatch(f"expected {place} to be {_shown(self.equals)}", text)
        if self.contains is not None and self.contains not in text:
            return _mismatch(f"expected {place} to contain {_shown(self.contains)}{where}", text)
        if self.matches is not None and not re.search(self.matches, text, re.MULTILINE):
            return _mismatch(f"expected {place} to match {_shown(self.matches)}{where}", text)
        return None


def _mismatch(expected: str, text: str) -> Mismatch:
    is_empty = not text.strip()
    return Mismatch(f"{expected}, and it is empty" if is_empty else expected, output=excerpt(text))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else text[:99] + "…")
