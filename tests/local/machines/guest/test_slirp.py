"""Which ports of a machine are open to a caller on this computer."""

from __future__ import annotations

import os
import socket

import pytest

from imagepipe.local.machines.driver import Ingress
from imagepipe.local.machines.guest.slirp import Port, has_wide, listening, wanted

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
