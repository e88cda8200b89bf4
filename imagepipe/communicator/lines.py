"""Split the bytes of a stream into lines of text as they arrive."""

from __future__ import annotations

import codecs
from collections.abc import Callable

LONGEST = 64 * 1024
"""Longest line in characters; longer ones are emitted in pieces, so that they do not fill the memory."""


class Lines:
    """Calls `emit` for each line, without its end. Omits text that a carriage return overwrote, as a terminal does."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []
        self._length = 0

    def feed(self, block: bytes) -> None:
        """Take more of the stream, which may be cut anywhere, even within a character."""
        *whole, last = self._decoder.decode(block).split("\n")
        for part in whole:
            self._rest.append(part)
            self._flush()
        if last:
            self._rest.append(last)
            self._length += len(last)
            if self._length > LONGEST:
                self._flush()

    def end(self) -> None:
        """Emit the rest of the stream as a line."""
        if tail := self._decoder.decode(b"", final=True):
            self._rest.append(tail)
        if self._rest:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._rest)
        self._rest, self._length = [], 0
        self._emit(text.rstrip("\r").rpartition("\r")[2])
