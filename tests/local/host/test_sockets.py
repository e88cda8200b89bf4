"""Sockets are found with their address, port and state."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from imagepipe.local.host.sockets import ESTABLISHED, LISTENING, sockets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.mark.parametrize(
    ("family", "kind", "address"), [(socket.AF_INET, "tcp", "127.0.0.1"), (socket.AF_INET6, "tcp6", "::1")]
)
def test_a_listening_socket_is_found_by_address_and_port(family: int, kind: str, address: str) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind((address, 0))
        except OSError:
            pytest.skip("there is no IPv6 here")
        listening.listen()
        port = listening.getsockname()[1]
        [found] = [each for each in sockets(kind) if (each.address, each.port) == (address, port)]
        assert found.state == LISTENING
        assert f"socket:[{found.inode}]" == str(Path(f"/proc/self/fd/{listening.fileno()}").readlink())


def test_a_connection_is_found_in_the_namespace_of_a_process() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as caller,
    ):
        # Not by its port alone: a connection that another program has closed may have the same one for a minute.
        link = str(Path(f"/proc/self/fd/{caller.fileno()}").readlink())
        [found] = [each for each in sockets("tcp", os.getpid()) if f"socket:[{each.inode}]" == link]
        assert (found.port, found.state) == (caller.getsockname()[1], ESTABLISHED)
