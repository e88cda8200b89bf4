"""A real Temporal server on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PROGRAM = Path(sys.executable).with_name("temporal")


@dataclass
class Server:
    """A Temporal server of our own. Its state is in a file, so that a kill loses nothing."""

    folder: Path
    port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        words = ["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(self.port)]
        state = ["--db-filename", str(self.folder / "temporal.db"), "--log-level", "error"]
        with (self.folder / "temporal.log").open("ab") as log:
            self.process = subprocess.Popen(
                [PROGRAM, *words, *state],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(1200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None, (self.folder / "temporal.log").read_text()
            time.sleep(0.1)
        raise AssertionError("the Temporal server does not answer")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Run a Temporal server for the block."""
    own = Server(folder)
    own.start()
    try:
        yield own
    finally:
        own.kill()
