from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from imagepipe.clock import Deadline, SystemClock
from imagepipe.communicator.shell import Script, run_script
from imagepipe.communicator.ssh import Connection, Result, Watch, connect
from imagepipe.engine.cancel import Cancel
from tests.communicator.sshd import Sshd


@pytest.fixture
def connection(server: Sshd) -> Iterator[Connection]:
    made = connect(server.endpoint)
    yield made
    made.close()


@dataclass
class Shell:
    """Runs things on a connection, and keeps what they say."""

    connection: Connection
    clock: SystemClock = field(default_factory=SystemClock)
    lines: list[tuple[Literal["out", "err"], str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cancel = Cancel(self.clock)

    def on_line(self, stream: Literal["out", "err"], text: str) -> None:
        self.lines.append((stream, text))

    def run(
        self, command: str, *, seconds: float = 30, send: bytes | Callable[[Callable[[bytes], None]], None] = b""
    ) -> Result:
        return self.connection.run(command, self.watch(seconds), send=send)

    def watch(self, seconds: float = 30) -> Watch:
        return Watch(lambda stream, text: self.on_line(stream, text), Deadline.after(seconds, self.clock), self.cancel)

    def script(self, script: Script, *, seconds: float = 30) -> Result:
        return run_script(self.connection, script, self.watch(seconds))

    @property
    def out(self) -> list[str]:
        return [text for stream, text in self.lines if stream == "out"]

    @property
    def err(self) -> list[str]:
        return [text for stream, text in self.lines if stream == "err"]


@pytest.fixture
def shell(connection: Connection) -> Shell:
    return Shell(connection)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder on the "machine", which is this one."""
    path = tmp_path / "remote"
    path.mkdir()
    return path
