"""A two-way conversation with a running command, and the lines of its error stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal

from imagepipe.communicator.ssh import Connection, Disconnected, Watch, closing
from imagepipe.communicator.streams import OnLine, close, drain

if TYPE_CHECKING:
    import paramiko

LAST_LINES = 20
END_SECONDS = 10.0
"""Time for a command to end after its input was closed; otherwise a stuck one would hold us until the deadline."""


class Dialogue:
    """The input and output of a running command. Reads and writes may run in parallel."""

    def __init__(self, connection: Connection, channel: paramiko.Channel, timed_out: threading.Event) -> None:
        self._connection = connection
        self._channel = channel
        self._timed_out = timed_out
        self.errors: deque[str] = deque(maxlen=LAST_LINES)
        """The last lines of the error stream; all of them once the code is known."""
        self.is_silent = False
        """True if the command sent nothing for longer than the limit."""
        self._aside: threading.Thread | None = None

    def listen_aside(self, on_line: OnLine) -> None:
        """Pass on the error stream line by line, in parallel with the dialogue."""

        def note(stream: Literal["out", "err"], text: str) -> None:
            self.errors.append(text)
            on_line(stream, text)

        self._aside = threading.Thread(target=drain, args=(self._channel.recv_stderr, "err", note), daemon=True)
        self._aside.start()

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes; none at the end or after too long a silence, which sets `is_silent`."""
        try:
            return self._channel.recv(count)
        except TimeoutError:
            self.is_silent = True
            return b""
        except (OSError, EOFError):
            return b""

    def write(self, block: bytes) -> None:
        """Write all bytes. Raises Disconnected if the command no longer reads."""
        import paramiko

        try:
            self._channel.sendall(block)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Disconnected(f"the command on {self._connection.endpoint.host} no longer reads its input") from error

    def code(self) -> int | None:
        """Close the command's input, wait a while for its end and return its exit code.

        None if the connection broke, a signal ended the command, or it still runs. Raises Disconnected at the deadline.
        """
        import paramiko

        with suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.shutdown_write()
        self._channel.status_event.wait(END_SECONDS)
        if self._timed_out.is_set():
            raise Disconnected(f"the command on {self._connection.endpoint.host} did not end in time")
        if self._aside is not None and self._channel.status_event.is_set():
            self._aside.join(END_SECONDS)
        return self._channel.exit_status if self._channel.exit_status >= 0 else None


@contextmanager
def open_dialogue(
    connection: Connection, command: str, watch: Watch, *, silent_seconds: float | None = None
) -> Iterator[Dialogue]:
    """Run a command and open a dialogue with it. The channel is closed after the block, at the deadline or on a cancel.

    `silent_seconds` is the longest time that a read waits for output; None for no limit.

    Raises Disconnected if the connection breaks; exceptions of the watch's cancel flag are passed on.
    """
    channel = connection.open_channel()
    try:
        with closing(channel, watch) as timed_out:
            dialogue = Dialogue(connection, channel, timed_out)
            connection.start(channel, command)
            channel.settimeout(silent_seconds)
            dialogue.listen_aside(watch.on_line)
            yield dialogue
    finally:
        close(channel)
        watch.cancel.check()
