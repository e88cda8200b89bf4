"""A command that is talked with: bytes both ways while it runs, beside what it says on its error stream."""

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
"""For a command to end by itself once nothing more comes; one that is stuck would be waited for until the deadline."""


class Dialogue:
    """The two ends of a running command. Reading and writing may go on side by side."""

    def __init__(self, connection: Connection, channel: paramiko.Channel, timed_out: threading.Event) -> None:
        self._connection = connection
        self._channel = channel
        self._timed_out = timed_out
        self.errors: deque[str] = deque(maxlen=LAST_LINES)
        """The last lines of the error stream; all of them once the code is known."""
        self.is_silent = False
        """Nothing came for longer than it may."""
        self._aside: threading.Thread | None = None

    def listen_aside(self, on_line: OnLine) -> None:
        """Take what comes on the error stream, line by line, beside the talk."""

        def note(stream: Literal["out", "err"], text: str) -> None:
            self.errors.append(text)
            on_line(stream, text)

        self._aside = threading.Thread(target=drain, args=(self._channel.recv_stderr, "err", note), daemon=True)
        self._aside.start()

    def read(self, count: int) -> bytes:
        """Up to so many bytes; none at the end, or where nothing came for too long: then `is_silent` is set."""
        try:
            return self._channel.recv(count)
        except TimeoutError:
            self.is_silent = True
            return b""
        except (OSError, EOFError):
            return b""

    def write(self, block: bytes) -> None:
        """All of them. Raises Disconnected where nobody reads any more."""
        import paramiko

        try:
            self._channel.sendall(block)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise Disconnected(f"the command on {self._connection.endpoint.host} reads no more") from error

    def code(self) -> int | None:
        """Its exit code, once it has ended: it is told that nothing more comes, and given a while.

        None where the connection broke, a signal ended it, or it goes on. Raises Disconnected at the deadline.
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
    """Run a command and talk with it. At the end of the block, at the deadline or on a cancel its channel is closed.

    `silent_seconds` is how long it may say nothing while somebody reads; None: for ever.

    Raises Disconnected where the connection broke, and what the watch's cancel raises.
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
