"""A port of one address beside a service that has it of every address."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from imagepipe.local.host import port_relay
from imagepipe.local.host.processes import start_time

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="repair mode is root's, on Linux")

ADDRESS = "127.42.253.7"


@contextmanager
def service(address: str, port: int = 0) -> Iterator[int]:
    """Echoes what it gets, after a greeting, until its client stops sending."""
    with closing(socket.socket()) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen()

        def answer() -> None:
            while True:
                try:
                    accepted, _ = listening.accept()
                except OSError:
                    return
                with accepted:
                    accepted.sendall(address.encode() + b"\n")
                    while data := accepted.recv(65536):
                        accepted.sendall(data)

        threading.Thread(target=answer, daemon=True).start()
        yield int(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)


@contextmanager
def relayed(port: int, target: int) -> Iterator[None]:
    with subprocess.Popen(["sleep", "60"]) as supervisor:
        words = [ADDRESS, str(port), str(target), str(supervisor.pid), start_time(supervisor.pid)]
        done = subprocess.run(
            [sys.executable, "-m", "imagepipe.local.host.port_relay", *words],
            capture_output=True,
            text=True,
            check=True,
        )
        until = os.pidfd_open(int(done.stdout))
        try:
            yield
        finally:
            supervisor.kill()
            ended, _, _ = select.select([until], [], [], 10)
            os.close(until)
            assert ended, "the relay outlives the supervisor"


def test_the_address_itself_reaches_the_target_and_others_the_service() -> None:
    with service("0.0.0.0") as port, service(ADDRESS) as target, relayed(port, target):
        with socket.create_connection((ADDRESS, port), timeout=5) as client:
            assert client.makefile().readline() == f"{ADDRESS}\n"
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            assert client.makefile().readline() == "0.0.0.0\n"


def test_many_bytes_pass_both_ways_and_the_end_of_sending_too() -> None:
    sent = os.urandom(1 << 20) * 8
    with (
        service("0.0.0.0") as port,
        service(ADDRESS) as target,
        relayed(port, target),
        socket.create_connection((ADDRESS, port), timeout=10) as client,
    ):

        def send() -> None:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        with client.makefile("rb") as answer:
            assert answer.readline() == f"{ADDRESS}\n".encode()
            assert answer.read() == sent
        sender.join()


def test_a_service_on_the_address_itself_keeps_its_port() -> None:
    with service(ADDRESS) as port:
        assert port_relay.is_taken(ADDRESS, port)
        with pytest.raises(OSError, match="somebody listens"):
            port_relay.listener(ADDRESS, port)


def test_a_service_on_every_address_is_not_in_the_way() -> None:
    with service("0.0.0.0") as port:
        assert not port_relay.is_taken(ADDRESS, port)
