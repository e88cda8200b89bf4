"""The end of a script's output: a mark that its runner writes, as background processes may hold the streams open."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

EDGE = b"\x1e"
"""ASCII's record separator: no argument of ours has it, so a list of processes does not show a mark."""


@dataclass(frozen=True, slots=True)
class EndMark:
    """A text that nobody can guess, written by the runner after a script's output, on both streams."""

    name: str = field(default_factory=lambda: f"imagepipe-{secrets.token_hex(8)}")

    @property
    def beginning(self) -> bytes:
        return EDGE + self.name.encode() + b" "

    ending = b"\n"


class UntilMark:
    """Hands on a stream's bytes up to the mark, each as soon as it cannot be a part of the mark."""

    def __init__(self, mark: EndMark, feed: Callable[[bytes], None]) -> None:
        self._beginning, self._ending = mark.beginning, mark.ending
        self._feed = feed
        self._held = b""
        self._is_after = False
        self.note: str | None = None
        """The words after the mark, once it has come."""

    def feed(self, block: bytes) -> bool:
        """Take more of the stream. True once the mark has come: what follows it is not the script's."""
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
        """The stream ended without the mark."""
        if not self._is_after:
            self._pass(self._held)
        self._held = b""

    def _pass(self, block: bytes) -> None:
        if block:
            self._feed(block)

    def _part_at_end(self, block: bytes) -> int:
        """How many of the last bytes may be the beginning of the mark."""
        longest = min(len(block), len(self._beginning) - 1)
        return next((n for n in range(longest, 0, -1) if block.endswith(self._beginning[:n])), 0)
