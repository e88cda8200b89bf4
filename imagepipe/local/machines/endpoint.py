"""The way from a machine to its cloud's endpoint, and to nothing else on this computer's loopback.

slirp4netns would let a machine reach every service on this computer's loopback, so this is turned off. The
process that answers 169.254.169.254 also listens there on the endpoint's port. It accepts in the machine's network and
connects in this computer's, whose namespace it was handed as a file descriptor.
"""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from imagepipe.local.host.port_relay import carry

CLONE_NEWNET = 0x40000000  # linux/sched.h
PORT_FILE = "port"
"""The file in a store that holds its endpoint's port."""

_libc = ctypes.CDLL(None, use_errno=True)


def port_of(machines: Path) -> int:
    """Read the port of the store that has this folder of machines; 0 if no cloud has served it."""
    try:
        return int((machines.parent / PORT_FILE).read_text())
    except (FileNotFoundError, ValueError):
        return 0


def serve(document: Mapping[str, Any], address: str) -> None:
    """Listen on this address in a thread, if the machine's document has an endpoint."""
    port = int(document.get("endpoint-port", 0))
    if not port:
        return
    listening = socket.create_server((address, port), backlog=128)
    namespace = int(document["namespace"])
    threading.Thread(target=_accept, args=(listening, namespace, port), daemon=True).start()


def _accept(listening: socket.socket, namespace: int, port: int) -> None:
    while True:
        with suppress(OSError):  # the caller is gone again
            accepted, _ = listening.accept()
            threading.Thread(target=_pass_on, args=(accepted, namespace, port), daemon=True).start()


def _pass_on(accepted: socket.socket, namespace: int, port: int) -> None:
    with accepted, suppress(OSError):
        if _libc.setns(namespace, CLONE_NEWNET) < 0:  # of this thread alone
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        with socket.create_connection(("127.0.0.1", port)) as onward:
            carry(accepted, onward)
