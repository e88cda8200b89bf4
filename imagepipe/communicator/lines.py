"""Bytes of a stream as lines of text, as they come."""

from __future__ import annotations

import codecs
from collections.abc import Callable

LONGEST = 64 * 1024
"""Characters of a line before it is handed on in pieces: a stream without line ends must not fill the memory."""


class Lines:
    """Calls `emit` for each line, without its end. What a carriage return overwrote is left out, as a terminal does."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest: list[str] = []
        self._length = 0

    def feed(self, block: bytes) -> None:
        """More of the stream; it may end anywhere, within a character too."""
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
        """The stream is over; what is left is a line too."""
        if tail := self._decoder.decode(b"", final=True):
            self._rest.append(tail)
        if self._rest:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._rest)
        self._rest, self._length = [], 0
        self._emit(text.rstrip("\r").rpartition("\r")[2])
