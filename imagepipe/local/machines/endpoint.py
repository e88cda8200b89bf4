"""The way from a machine to its cloud's endpoint, and to nothing else on this computer's loopback.

slirp4netns would let a machine reach every service on this computer's loopback, so this is turned off. The
process that answers 169.254.169.254 also listens there on the endpoint's port. It accepts in the machine's network and
connects in this computer's, whose namespace it was handed as a file descriptor. A plain user's process may not enter
that namespace again: it keeps a thread there (`Dialer`) when it leaves.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from imagepipe.local.host.port_relay import carry
from imagepipe.local.host.rootless import CLONE_NEWNET

PORT_FILE = "port"
"""The file in a store that holds its endpoint's port."""

_libc = ctypes.CDLL(None, use_errno=True)


def port_of(machines: Path) -> int:
    """Read the port of the store that has this folder of machines; 0 if no cloud has served it."""
    try:
        return int((machines.parent / PORT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return 0


class Dialer:
    """Connects to a port of the network in which it was made, wherever the rest of the process is by then."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._accepted: SimpleQueue[socket.socket] = SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def pass_on(self, accepted: socket.socket) -> None:
        """Carry the bytes of this connection to the port and back, in another thread."""
        self._accepted.put(accepted)

    def _run(self) -> None:
        while True:  # a new thread has the namespaces of the thread that starts it
            threading.Thread(target=self._carry, args=(self._accepted.get(),), daemon=True).start()

    def _carry(self, accepted: socket.socket) -> None:
        with accepted, suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as onward:
            carry(accepted, onward)


def dialer(document: Mapping[str, Any]) -> Dialer:
    """Make the dialer to the endpoint of a machine's document, in the calling thread's network."""
    return Dialer(int(document.get("endpoint-port", 0)))


def serve(document: Mapping[str, Any], address: str, dialer: Dialer | None = None) -> None:
    """Listen on this address in a thread, if the machine's document has an endpoint.

    The dialer connects to the endpoint; without it, threads enter the namespace that the document names.
    """
    port = int(document.get("endpoint-port", 0))
    if not port:
        return
    listening = socket.create_server((address, port), backlog=128)
    namespace = int(document["namespace"])

    def enter_and_pass_on(accepted: socket.socket) -> None:
        threading.Thread(target=_pass_on, args=(accepted, namespace, port), daemon=True).start()

    pass_on = enter_and_pass_on if dialer is None else dialer.pass_on
    threading.Thread(target=_accept, args=(listening, pass_on), daemon=True).start()


def _accept(listening: socket.socket, pass_on: Callable[[socket.socket], None]) -> None:
    while True:
        with suppress(OSError):  # the caller is gone again
            accepted, _ = listening.accept()
            pass_on(accepted)


def _pass_on(accepted: socket.socket, namespace: int, port: int) -> None:
    with accepted, suppress(OSError):
        if _libc.setns(namespace, CLONE_NEWNET) < 0:  # of this thread alone
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with socket.create_connection(("127.0.0.1", port)) as onward:
            carry(accepted, onward)
