"""The ports of a machine that are open to a caller on this computer."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import Ingress
from imagepipe.local.machines.guest import slirp
from imagepipe.local.machines.guest.slirp import Forwarder, Port, has_wide, listening, wanted
from imagepipe.local.machines.records import Process
from imagepipe.values import HostPorts

WEB, SSH, DNS = Port("tcp", 80), Port("tcp", 22), Port("udp", 53)


def _readable(value: Ingress | set[Port]) -> str:
    """The same in every process: a set's own text is not."""
    if isinstance(value, Ingress):
        return f"{value.protocol} {value.from_port}-{value.to_port} {value.cidr}"
    return " ".join(sorted(f"{port.protocol}/{port.number}" for port in value)) or "none"


@pytest.mark.parametrize(
    ("rule", "ports"),
    [
        (Ingress("tcp", 22, 22, "127.0.0.1/32"), {SSH}),
        (Ingress("tcp", 22, 22, "0.0.0.0/0"), {SSH}),
        (Ingress("tcp", 22, 22, "127.0.0.0/8"), {SSH}),
        (Ingress("tcp", 22, 22, "203.0.113.7/32"), set()),
        (Ingress("tcp", 22, 22, "::/0"), set()),
        (Ingress("tcp", 22, 23, "0.0.0.0/0"), {SSH, Port("tcp", 23)}),
        (Ingress("udp", 53, 53, "0.0.0.0/0"), {DNS}),
        (Ingress("icmp", -1, -1, "0.0.0.0/0"), set()),
        (Ingress("tcp", 0, 65535, "0.0.0.0/0"), {WEB}),
        (Ingress("udp", 0, 65535, "0.0.0.0/0"), {DNS}),
        (Ingress("-1", -1, -1, "0.0.0.0/0"), {WEB, DNS}),
        (Ingress("-1", -1, -1, "10.0.0.0/8"), set()),
    ],
    ids=_readable,
)
def test_a_rule_opens_its_ports_to_us_if_it_means_us(rule: Ingress, ports: set[Port]) -> None:
    assert wanted([rule], frozenset({WEB, DNS})) == ports


def test_only_wide_rules_for_this_computer_depend_on_listening_ports() -> None:
    assert has_wide([Ingress("-1", -1, -1, "0.0.0.0/0")])
    assert has_wide([Ingress("tcp", 1024, 65535, "0.0.0.0/0")])
    assert not has_wide([Ingress("tcp", 1024, 65535, "10.0.0.0/8"), Ingress("tcp", 22, 22, "0.0.0.0/0")])


def test_listening_ports_are_found_without_those_on_loopback() -> None:
    with socket.socket() as everywhere, socket.socket() as loopback:
        everywhere.bind(("0.0.0.0", 0))
        loopback.bind(("127.0.0.1", 0))
        everywhere.listen()
        loopback.listen()
        found = listening(os.getpid())
        assert Port("tcp", everywhere.getsockname()[1]) in found
        assert Port("tcp", loopback.getsockname()[1]) not in found


@contextmanager
def slirp4netns(folder: Path, *, taken: frozenset[int] = frozenset()) -> Iterator[list[tuple[str, int, int]]]:
    """Answer like slirp4netns in this folder; yield what it forwards: address, host port, guest port."""
    forwards: list[tuple[str, int, int]] = []

    def answer(request: dict[str, Any]) -> dict[str, object]:
        if request["execute"] != "add_hostfwd":
            return {"return": {"entries": []}}
        wanted = request["arguments"]
        if wanted["host_port"] in taken:
            return {"error": {"desc": "bad request: add_hostfwd: slirp_add_hostfwd failed"}}
        forwards.append((str(wanted["host_addr"]), wanted["host_port"], wanted["guest_port"]))
        return {"return": {"id": len(forwards)}}

    def serve() -> None:
        while True:
            try:
                line, _ = server.accept()
            except OSError:
                return
            with line:
                line.sendall(json.dumps(answer(json.loads(line.makefile().read()))).encode())

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / slirp.SOCKET))
        server.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield forwards
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def forwarder(folder: Path, *, optional: frozenset[Port] = frozenset()) -> Forwarder:
    addresses = ("127.42.1.4", "127.42.9.9")
    return Forwarder(folder, addresses, Process.of(os.getpid()), [], HostPorts(1024), optional)


def test_ports_that_the_user_may_not_bind_are_forwarded_at_an_offset_of_each_address(tmp_path: Path) -> None:
    with slirp4netns(tmp_path) as forwards:
        forwarder(tmp_path).set_forwards(frozenset({SSH, Port("tcp", 8080)}))
    assert sorted(forwards) == [
        ("127.42.1.4", 8080, 8080), ("127.42.1.4", 20022, 22), ("127.42.9.9", 8080, 8080), ("127.42.9.9", 20022, 22),
    ]  # fmt: skip


def test_a_port_of_a_wide_rule_that_a_plain_user_cannot_open_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    web = Port("tcp", 8080)
    with slirp4netns(tmp_path, taken=frozenset({8080})) as forwards:
        forwarder(tmp_path, optional=frozenset({web})).set_forwards(frozenset({SSH, web}))
        assert [guest for _, _, guest in forwards] == [22, 22]
        with pytest.raises(
            MachineError, match=r"port 8080 of 127\.42\.1\.4: .*something on this computer has the port"
        ):
            forwarder(tmp_path).set_forwards(frozenset({web}))
