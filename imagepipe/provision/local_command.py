"""Run a program on this computer as part of a step: its lines go to the log, and a cancel or the deadline ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from imagepipe.communicator.lines import Lines
from imagepipe.communicator.ssh import Result, Watch

ENDING_SECONDS = 5.0
"""Time for a program to end by itself after SIGTERM."""
HELD_SECONDS = 2.0
"""Time for its output to end after its exit, if no other process keeps it open."""


def run_here(command: Sequence[str], watch: Watch, *, env: Mapping[str, str], cwd: Path) -> Result:
    """Run a program in a session of its own, with nothing on its standard input. All of its session ends with it.

    Raises OSError if it cannot be started; exceptions of the watch's cancel flag are passed on.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal reaches us alone, and we end the program
    )
    assert process.stdout is not None
    assert process.stderr is not None
    readers = [_reader(process.stdout, "out", watch), _reader(process.stderr, "err", watch)]
    timed_out = False
    try:
        with watch.cancel.calling(lambda: threading.Thread(target=_end, args=(process,), daemon=True).start()):
            try:
                process.wait(watch.deadline.remaining())
            except subprocess.TimeoutExpired:
                timed_out = True
        watch.cancel.check()
    finally:
        _end(process)
        for reader in readers:
            reader.join(HELD_SECONDS)
    if timed_out:
        return Result(None, timed_out=True)
    return Result(process.returncode if process.returncode >= 0 else None)


def _reader(stream: IO[bytes], name: Literal["out", "err"], watch: Watch) -> threading.Thread:
    """Start a thread that passes on the lines of a stream until it ends."""

    def read() -> None:
        lines = Lines(lambda text: watch.on_line(name, text))
        with stream, suppress(OSError, ValueError):
            while block := os.read(stream.fileno(), 65536):
                lines.feed(block)
        lines.end()

    thread = threading.Thread(target=read, name=f"read {name}", daemon=True)
    thread.start()
    return thread


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and the processes that it left in its session."""
    if process.poll() is None:
        _signal(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDING_SECONDS)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to all processes of the program's group, of which it is the leader."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
