"""QEMU's machine protocol, as much of it as a driver needs (QEMU documentation, "QEMU Machine Protocol Reference")."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from imagepipe.local.host import unix_socket
from imagepipe.local.host.errors import MachineError

SOCKET = "control.sock"
ANSWER_SECONDS = 10.0


class Connection:
    """A connection to one QEMU, for a request or two, or for its events."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._file = line.makefile("rwb", buffering=0)
        self._reader = self._messages()
        try:
            next(self._reader)  # the greeting
            self.ask("qmp_capabilities")
        except BaseException:  # QEMU may end before it greets
            self.close()
            raise

    def ask(self, command: str, arguments: Mapping[str, Any] | None = None, *, handing: int | None = None) -> Any:
        """Send a command, with a file descriptor to hand over, and return its result. Raises MachineError.

        Events that come meanwhile are dropped.
        """
        text = json.dumps({"execute": command, "arguments": arguments or {}}).encode() + b"\n"
        socket.send_fds(self._line, [text], [] if handing is None else [handing])
        for message in self._reader:
            if "error" in message:
                raise MachineError(f"QEMU refused {command}: {message['error'].get('desc')}")
            if "return" in message:
                return message["return"]
        raise MachineError(f"QEMU ended before it answered {command}")

    def events(self) -> Iterator[dict[str, Any]]:
        """Read events until QEMU ends."""
        return (message for message in self._reader if "event" in message)

    def close(self) -> None:
        self._file.close()
        self._line.close()

    def _messages(self) -> Iterator[dict[str, Any]]:
        try:
            for line in self._file:
                yield json.loads(line)
        except ConnectionResetError:  # it was killed
            return


@contextmanager
def connected(folder: Path) -> Iterator[Connection]:
    """Connect to the QEMU of this folder's machine. Raises MachineError, also for a QEMU that ends meanwhile."""
    try:
        with (
            unix_socket.connect(folder, SOCKET, seconds=ANSWER_SECONDS) as line,
            closing(Connection(line.dup())) as qemu,
        ):
            yield qemu
    except (OSError, StopIteration) as problem:
        raise MachineError(f"QEMU does not answer: {problem}") from problem


def ask(folder: Path, command: str, **arguments: Any) -> Any:
    """Send one request to the QEMU of this folder's machine. Raises MachineError."""
    with connected(folder) as qemu:
        return qemu.ask(command, arguments)


def monitor(folder: Path, text: str, *, answer: str = "") -> None:
    """Send one line to the human monitor, for commands that QMP lacks.

    Raises MachineError if the reply does not end with `answer`, or is not empty when `answer` is.
    """
    said = str(ask(folder, "human-monitor-command", **{"command-line": text})).strip()
    if not said.endswith(answer) or (said and not answer):
        raise MachineError(f"QEMU refused {text}: {said}")
