"""Serve a port of a machine although a service of this computer listens on that port of every address.

It runs as `python -m imagepipe.local.host.port_relay`. A computer's own sshd listens on 0.0.0.0:22, and then nobody
else may listen on 127.42.1.4:22; slirp4netns is refused. The kernel makes one exception, for sockets in repair mode
(tcp(7), TCP_REPAIR; made to move live connections to another computer). A connection to the address itself goes to the
socket that is bound to it. So this process listens in that mode, takes accepted connections out of it, and passes them
on to a port that slirp4netns could get.

It ends with the machine's supervisor.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

from imagepipe.local.host.processes import is_alive
from imagepipe.local.host.sockets import LISTENING, sockets

TCP_REPAIR = 19  # linux/tcp.h
ON, OFF = 1, -1  # -1 sends no window probe: only a connection that was moved needs one
CHUNK_BYTES = 256 << 10


def listener(address: str, port: int) -> socket.socket:
    """Listen on exactly this address, even if a service has the port of every address. Raises OSError."""
    if is_taken(address, port):
        raise OSError(98, f"somebody listens on port {port} of {address} itself")
    made = socket.socket()
    try:
        made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
        made.bind((address, port))
        made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


def is_taken(address: str, port: int) -> bool:
    """Tell if a process listens on this address and port itself, and not on every address."""
    return any((each.address, each.port, each.state) == (address, port, LISTENING) for each in sockets("tcp"))


def serve(listening: socket.socket, target: tuple[str, int], until: int) -> None:
    """Pass connections on to the target until the process behind this pidfd has ended."""
    poll = select.poll()
    poll.register(listening, select.POLLIN)
    poll.register(until, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == until:
                return
            accepted, _ = listening.accept()
            threading.Thread(target=_pass_on, args=(accepted, target), daemon=True).start()


def _pass_on(accepted: socket.socket, target: tuple[str, int]) -> None:
    with accepted, suppress(OSError):
        accepted.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
        with socket.create_connection(target) as onward:
            carry(accepted, onward)


def carry(caller: socket.socket, target: socket.socket) -> None:
    """Carry the bytes of two connections to one another, both ways, until both have ended."""
    for each in (caller, target):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    back = threading.Thread(target=_pump, args=(target, caller), daemon=True)
    back.start()
    _pump(caller, target)
    back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    chunk = memoryview(bytearray(CHUNK_BYTES))
    with suppress(OSError):
        while count := source.recv_into(chunk):
            sink.sendall(chunk[:count])
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def main(arguments: Sequence[str]) -> int:
    """ADDRESS PORT TARGET-PORT PID STARTED: detach; print our own id, or what is wrong, on standard output."""
    address, port, target_port, pid, started = arguments
    try:
        listening = listener(address, int(port))
        until = os.pidfd_open(int(pid))
    except OSError as problem:
        sys.stdout.write(f"error {problem.strerror or problem}\n")
        return 1
    if child := os.fork():
        sys.stdout.write(f"{child}\n")
        return 0
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    if is_alive(int(pid), started):
        serve(listening, (address, int(target_port)), until)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
