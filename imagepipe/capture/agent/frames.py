"""Frames over a byte stream: JSON messages, and blocks of data. Both ends of the conversation use it."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable
from typing import Any

HEAD = struct.Struct(">cI")
"""Header of a frame: its kind and the number of bytes that follow."""
MESSAGE, DATA = b"J", b"D"
LARGEST = {MESSAGE: 8 << 20, DATA: 2 << 20}
"""Largest frames. In practice 80,000 extents are 2 MB of JSON, and a block of the image is 1 MiB, so a larger frame
means that the stream is broken."""

HANDSHAKE = b"\nimagepipe-agent speaks\n"
"""Text before the agent's first frame, because a shell's start-up files may print something first."""
LONGEST_PREFACE = 64 << 10


class ProtocolError(Exception):
    """The other end is gone or does not follow the protocol."""


class Wire:
    """One end of the byte stream."""

    def __init__(self, read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
        """Use these functions: `read(n)` returns up to n bytes, and b"" at the end; `write` writes all of its bytes."""
        self._read = read
        self._write = write
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        """Send a message. Thread-safe."""
        self._write_frame(MESSAGE, json.dumps(message).encode())

    def send_data(self, block: bytes) -> None:
        """Send a block of data. Thread-safe."""
        self._write_frame(DATA, block)

    def _write_frame(self, kind: bytes, body: bytes) -> None:
        with self._lock:
            self._write(HEAD.pack(kind, len(body)))
            self._write(body)

    def handshake(self) -> None:
        """Announce that frames follow."""
        self._write(HANDSHAKE)

    def await_handshake(self) -> bytes:
        """Wait for the other end's handshake and return the bytes before it. Raises ProtocolError."""
        seen = bytearray()
        while not seen.endswith(HANDSHAKE):
            piece = self._read(1)
            if not piece or len(seen) > LONGEST_PREFACE:
                raise ProtocolError("no agent started" + (f": received {bytes(seen[:100])!r}" if seen else ""))
            seen += piece
        return bytes(seen[: -len(HANDSHAKE)])

    def receive(self) -> dict[str, Any] | bytes | None:
        """Return the next message or block; None at the end. Raises ProtocolError."""
        head = self._exactly(HEAD.size, may_end=True)
        if not head:
            return None
        kind, size = HEAD.unpack(head)
        if size > LARGEST.get(kind, -1):
            raise ProtocolError(f"received data that is not a frame: {head!r}")
        body = self._exactly(size)
        if kind == DATA:
            return body
        try:
            message = json.loads(body.decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolError("received data that is not a message") from error
        if not isinstance(message, dict):
            raise ProtocolError("received data that is not a message")
        return message

    def _exactly(self, count: int, *, may_end: bool = False) -> bytes:
        pieces: list[bytes] = []
        have = 0
        while have < count:
            piece = self._read(count - have)
            if not piece:
                if may_end and not have:
                    return b""
                raise ProtocolError("the stream ended in the middle of a frame")
            pieces.append(piece)
            have += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
