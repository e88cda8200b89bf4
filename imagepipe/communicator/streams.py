"""The streams of a remote command: its input, and its output line by line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from imagepipe.communicator.end_mark import EndMark, UntilMark
from imagepipe.communicator.lines import Lines

if TYPE_CHECKING:
    import paramiko

QUIET_SECONDS = 10.0
"""Time without output, after a command has ended, before we stop waiting for processes that hold its streams open."""
HELD_SECONDS = 0.5
"""Time for a stream to end after the mark, if no other process keeps it open."""

OnLine = Callable[[Literal["out", "err"], str], None]


class Sender:
    """Writes a command's standard input. A command that stops reading is not an error."""

    def __init__(self, channel: paramiko.Channel, send: Callable[[Callable[[bytes], None]], None] | bytes) -> None:
        self._channel = channel
        self._send = send
        self.error: Exception | None = None
        self.is_done = threading.Event()

    def run(self) -> None:
        try:
            self._write()
        finally:
            self.is_done.set()

    def _write(self) -> None:
        import paramiko

        try:
            if isinstance(self._send, bytes):
                if self._send:
                    self._channel.sendall(self._send)
            else:
                self._send(self._channel.sendall)
            self._channel.shutdown_write()
        except (paramiko.SSHException, EOFError, TimeoutError):
            pass  # the exit code shows how the command ended
        except OSError as error:
            # Either the channel is closed, or a local file that was being sent could not be read.
            self.error = error if error.filename else None
            close(self._channel)


class Output:
    """The two output streams of a command, drained in parallel."""

    def __init__(self, channel: paramiko.Channel, on_line: OnLine, mark: EndMark | None) -> None:
        self._channel = channel
        self._on_line = on_line
        self._mark = mark
        self._changed = threading.Condition()
        self._open = 2
        """Number of streams that have not ended."""
        self._unmarked = 2
        """Number of streams on which output of the command itself may still arrive."""
        self._last = time.monotonic()
        """Time of the last output, or of the command's end."""
        self._is_over = False
        self._notes: list[str] = []
        self._error: BaseException | None = None
        for read, stream in ((channel.recv, "out"), (channel.recv_stderr, "err")):
            threading.Thread(target=self._drain, args=(read, stream), daemon=True).start()

    def wait(self) -> None:
        """Wait until the command has ended and its output has arrived. Exceptions of the callback are passed on."""
        self._channel.status_event.wait()  # a stream may be closed long before the command ends
        with self._changed:
            self._last = time.monotonic()
            while self._unmarked > 0:
                quiet = time.monotonic() - self._last
                if quiet > QUIET_SECONDS:
                    break
                self._changed.wait(QUIET_SECONDS - quiet + 0.01)
            if self._open > 0 and self._mark is not None:
                self._changed.wait_for(lambda: self._open == 0, HELD_SECONDS)
            self._is_over = True
        if self._error is not None:
            raise self._error

    def held_pipes(self) -> tuple[str, ...]:
        """Return the output pipes, which the mark names, if a stream is still open after the mark."""
        with self._changed:
            return tuple(sorted({pipe for note in self._notes for pipe in note.split()})) if self._open else ()

    def _drain(self, read: Callable[[int], bytes], stream: Literal["out", "err"]) -> None:
        import paramiko

        lines = Lines(lambda text: self._on_line(stream, text))
        until = UntilMark(self._mark, lines.feed) if self._mark is not None else None
        is_marked = False
        while True:
            try:
                block = read(65536)
            except (OSError, EOFError, paramiko.SSHException):
                block = b""
            with self._changed:
                if not self._is_over and not is_marked:
                    try:
                        is_marked = self._take(block, lines, until)
                    except BaseException as error:  # noqa: BLE001 - raised by `wait`
                        self._error, is_marked = error, True
                        close(self._channel)
                    self._unmarked -= is_marked
                self._open -= not block
                self._last = time.monotonic()
                self._changed.notify_all()
            if not block:
                break

    def _take(self, block: bytes, lines: Lines, until: UntilMark | None) -> bool:
        """Pass on a block. Return whether it was the last one of the command itself."""
        if until is None:
            lines.feed(block)
        elif until.feed(block):
            self._notes.append(until.note or "")
            lines.end()
            return True
        elif not block:
            until.end()
        if not block:
            lines.end()
        return not block


def close(channel: paramiko.Channel) -> None:
    """Close a channel; on a broken connection it is already closed."""

    import paramiko

    with suppress(paramiko.SSHException, EOFError, OSError):
        channel.close()


def drain(read: Callable[[int], bytes], stream: Literal["out", "err"], on_line: OnLine) -> None:
    """Pass on a stream of the channel line by line until it ends."""

    import paramiko

    lines = Lines(lambda text: on_line(stream, text))
    while True:
        try:
            block = read(65536)
        except (OSError, EOFError, paramiko.SSHException):
            block = b""
        if not block:
            break
        lines.feed(block)
    lines.end()
