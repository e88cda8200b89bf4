"""Standard output and error that never raise: a closed pipe, a full disk or a vanished terminal silences them.

A run must clean up whatever became of those who read what it prints. So the first write that fails is remembered, all
later ones go to /dev/null, and the exit code reports it at the end (docs/reference/exit-codes.md).
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import time
from typing import Any, TextIO, cast

POLL_SECONDS = 0.2
CHUNK_BYTES = 4096  # a pipe that poll() calls writable takes this much at once (pipe(7), PIPE_BUF)
PATIENCE_SECONDS = 5.0
"""How long a write may wait for its reader once the run is cancelled."""


class GuardedFile(io.RawIOBase):
    """A file descriptor that is written to until a write fails, and is /dev/null from then on."""

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
        """Give up writes that their reader does not take within PATIENCE_SECONDS: a stopped pager, a held terminal."""
        self._must_hurry = True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]  # typeshed has Buffer
        """Write all of it, or lose all of it. Never raises."""
        rest = memoryview(data)
        try:
            while rest and self.problem is None:
                self._wait_for_reader()
                try:
                    rest = rest[os.write(self._descriptor, rest[:CHUNK_BYTES]) :]
                except BlockingIOError:  # somebody who shares the terminal made it non-blocking
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
        """Wait for no reader any longer than PATIENCE_SECONDS, from now on."""
        self._out.hurry()
        self._err.hurry()

    def result_problem(self) -> OSError | None:
        """The reason why standard output did not take everything; None where it did."""
        sys.stdout.flush()
        return self._out.problem

    def exit_code(self, code: int) -> int:
        """The exit code of a command that ended with this code: 1 where its result was lost."""
        problem = self.result_problem()
        if code == 0 and problem is not None:
            code = 1
            if problem.errno != errno.EPIPE:  # `imagepipe runs | head` has what it wanted
                print(f"error: writing standard output: {problem.strerror}", file=sys.stderr)  # noqa: T201
        sys.stderr.flush()
        return code


def _open_closed_ones() -> None:
    """Open descriptors 0 to 2 where the caller closed them: else the next file, a journal say, became standard output.

    They are read-only, so a write to one fails, as it did before.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # the lowest free one


def _text(file: GuardedFile, before: TextIO | None, *, line_buffering: bool) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    # Whatever a machine printed is shown, in a terminal of any encoding.
    return io.TextIOWrapper(
        io.BufferedWriter(cast(Any, file)), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering
    )


current: StandardStreams | None = None
"""Those of this process; None where nobody guards them, as in tests that call a command in their own process."""


def guard() -> StandardStreams:
    """Guard this process's standard streams, once."""
    global current
    if current is None:
        current = StandardStreams()
    return current


def hurry() -> None:
    """Let no reader of standard output or error keep this process, from now on."""
    if current is not None:
        current.hurry()


def result_is_lost() -> bool:
    """Whether standard output did not take everything that was printed."""
    return current is not None and current.result_problem() is not None
