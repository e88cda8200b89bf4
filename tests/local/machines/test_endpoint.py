"""The way of a plain user's machine to the endpoint, from another network namespace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

LEAVES = """
import socket, sys
from imagepipe.local.host import rootless
from imagepipe.local.machines import endpoint
document = {"endpoint-port": int(sys.argv[1]), "namespace": -1}
dialer = endpoint.dialer(document)
rootless.unshare_network()
import subprocess
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
endpoint.serve(document, "127.0.0.1", dialer)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10) as line:
    line.sendall(b"hello\\n")
    print(line.makefile().readline(), end="")
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=10)
except ConnectionRefusedError:
    print("nothing else")
"""


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="makes a network namespace")
def test_a_process_that_has_left_our_network_still_passes_connections_to_the_endpoint_and_to_nothing_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as endpoint, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [str(each.getsockname()[1]) for each in (endpoint, other)]
        command = [sys.executable, "-c", LEAVES, *ports]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            endpoint.settimeout(60)
            line, _ = endpoint.accept()
            with line:
                line.sendall(line.makefile().readline().upper().encode())
            out, _ = process.communicate(timeout=60)
    assert out == "HELLO\nnothing else\n"
