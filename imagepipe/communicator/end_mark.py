"""Find the end of a script's output by a mark, because background processes may keep the streams open."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import field

from imagepipe.dataclass import dataclass

EDGE = b"\x1e"
"""ASCII's record separator. We never put it into a command's arguments, so no process list contains a complete mark."""


@dataclass(frozen=True, slots=True)
class EndMark:
    """An unguessable text that the runner writes after a script's output, on both streams."""

    name: str = field(default_factory=lambda: f"imagepipe-{secrets.token_hex(8)}")

    @property
    def beginning(self) -> bytes:
        return EDGE + self.name.encode() + b" "

    ending = b"\n"


class UntilMark:
    """Passes on a stream's bytes up to the mark. Holds back bytes that may be the beginning of the mark."""

    def __init__(self, mark: EndMark, feed: Callable[[bytes], None]) -> None:
        self._beginning, self._ending = mark.beginning, mark.ending
        self._feed = feed
        self._held = b""
        self._is_after = False
        self.note: str | None = None
        """The words after the mark, once it has come."""

    def feed(self, block: bytes) -> bool:
        """Take more of the stream. Return whether the mark has come; bytes after it are not the script's."""
        self._held += block
        if not self._is_after:
            before, found, after = self._held.partition(self._beginning)
            if not found:
                kept = self._part_at_end(before)
                self._pass(before[: len(before) - kept])
                self._held = before[len(before) - kept :]
                return False
            self._pass(before)
            self._held, self._is_after = after, True
        words, found, _ = self._held.partition(self._ending)
        if found and self.note is None:
            self.note = words.decode(errors="replace")
        return self.note is not None

    def end(self) -> None:
        """Pass on the rest of a stream that ended without the mark."""
        if not self._is_after:
            self._pass(self._held)
        self._held = b""

    def _pass(self, block: bytes) -> None:
        if block:
            self._feed(block)

    def _part_at_end(self, block: bytes) -> int:
        """Return how many of the last bytes may be the beginning of the mark."""
        longest = min(len(block), len(self._beginning) - 1)
        return next((n for n in range(longest, 0, -1) if block.endswith(self._beginning[:n])), 0)
