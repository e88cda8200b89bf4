"""The sockets of this computer's network namespaces, as /proc/net lists them (proc(5))."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path

from imagepipe.dataclass import dataclass

ESTABLISHED, CLOSED, LISTENING = "01", "07", "0A"  # include/net/tcp_states.h; unconnected UDP sockets are closed


@dataclass(frozen=True, slots=True)
class Socket:
    """The local end of a socket."""

    address: str
    port: int
    state: str
    inode: str


def sockets(kind: str, process: int | str = "self") -> Iterator[Socket]:
    """List the sockets of a kind (`tcp`, `tcp6`, `udp`, `udp6`) in the network namespace of a process."""
    for line in Path(f"/proc/{process}/net/{kind}").read_text().splitlines()[1:]:
        fields = line.split()
        address, port = fields[1].split(":")
        yield Socket(_address(address), int(port, 16), fields[3], fields[9])


def _address(text: str) -> str:
    """Convert an address from words in the computer's byte order, in hexadecimal."""
    words = [int(text[at : at + 8], 16).to_bytes(4, "little") for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(words)))
