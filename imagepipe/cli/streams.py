"""Standard output and error that never raise: a closed pipe, a full disk or a vanished terminal silences them.

A run must clean up even if nobody reads its output. So the first write that fails is recorded, all later ones go to
/dev/null, and the exit code reports it at the end (docs/reference/exit-codes.md).
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, TextIO, cast

POLL_SECONDS = 0.2
CHUNK_BYTES = 4096  # a pipe that poll() calls writable takes this much at once (pipe(7), PIPE_BUF)
PATIENCE_SECONDS = 5.0
"""Time that a write may wait for its reader after the run is cancelled."""


class GuardedFile(io.RawIOBase):
    """A file descriptor that is replaced by /dev/null after the first write that fails."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._must_hurry = False
        self.problem: OSError | None = None
        """The reason of the first write that failed."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def hurry(self) -> None:
        """Give up writes after PATIENCE_SECONDS from now on: the reader may be a stopped pager or a paused terminal."""
        self._must_hurry = True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed has Buffer
        """Write the data. If a write fails, drop the rest and still report success. Never raises."""
        rest = memoryview(data)
        try:
            while rest and self.problem is None:
                self._wait_for_reader()
                try:
                    rest = rest[os.write(self._descriptor, rest[:CHUNK_BYTES]) :]
                except BlockingIOError:  # another process made the shared terminal non-blocking
                    time.sleep(POLL_SECONDS / 10)
        except OSError as problem:
            self._silence(problem)
        return len(data)

    def _wait_for_reader(self) -> None:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLOUT)
        began: float | None = None
        while not poller.poll(POLL_SECONDS * 1000):
            if not self._must_hurry:
                continue
            began = began or time.monotonic()
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise TimeoutError(errno.ETIMEDOUT, "nobody reads it")

    def _silence(self, problem: OSError) -> None:
        self.problem = problem
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._descriptor)
        os.close(null)


class StandardStreams:
    """This process's standard output and error, guarded."""

    def __init__(self) -> None:
        _open_closed_ones()
        self._out, self._err = GuardedFile(1), GuardedFile(2)
        sys.stdout = _text(self._out, sys.stdout, line_buffering=self._out.isatty())
        sys.stderr = _text(self._err, sys.stderr, line_buffering=True)

    def hurry(self) -> None:
        """Wait for readers for at most PATIENCE_SECONDS from now on."""
        self._out.hurry()
        self._err.hurry()

    def result_problem(self) -> OSError | None:
        """Return the reason why a part of standard output was lost; None if nothing was."""
        sys.stdout.flush()
        return self._out.problem

    def exit_code(self, code: int) -> int:
        """Return the exit code of a command that ended with this code: 1 if its result was lost."""
        problem = self.result_problem()
        if code == 0 and problem is not None:
            code = 1
            if problem.errno != errno.EPIPE:  # EPIPE: a reader such as `head` stopped early
                print(f"error: writing standard output: {problem.strerror}", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
        return code


def _open_closed_ones() -> None:
    """Open descriptors 0 to 2 if the caller closed them. Otherwise the next file, say a journal, would get that number.

    They are read-only, so a write fails as it did before.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # gets the lowest free number


def _text(file: GuardedFile, before: TextIO | None, *, line_buffering: bool) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    # Escape characters that the terminal's encoding does not have.
    return io.TextIOWrapper(
        io.BufferedWriter(cast(Any, file)), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )


current: StandardStreams | None = None
"""Streams of this process; None if they are not guarded, as in tests that call a command in their own process."""


def guard() -> StandardStreams:
    """Guard this process's standard streams, once."""
    global current
    if current is None:
        current = StandardStreams()
    return current


def has_colours(file: IO[str]) -> bool:
    """Return whether a stream gets colours: a terminal does, and with FORCE_COLOR (force-color.org) everything."""
    return file.isatty() or bool(os.environ.get("FORCE_COLOR"))


speaker: Callable[[str], None] | None = None
"""Function that prints a line while a part of the terminal is redrawn all the time; None if nothing is."""


@contextmanager
def spoken_by(say: Callable[[str], None]) -> Iterator[None]:
    """Let `say` print the messages of signals for the block."""
    global speaker
    speaker = say
    try:
        yield
    finally:
        speaker = None


def hurry() -> None:
    """Stop waiting for readers of standard output and error from now on."""
    if current is not None:
        current.hurry()


def result_is_lost() -> bool:
    """Return whether a part of standard output was lost."""
    return current is not None and current.result_problem() is not None
