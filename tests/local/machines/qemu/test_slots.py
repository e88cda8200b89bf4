"""The slots of disks that are plugged into running virtual machines."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from imagepipe.local.host.errors import DiskBusy
from imagepipe.local.machines.qemu import qmp, slots


@pytest.mark.parametrize(
    ("device", "port"),
    [
        ("/dev/sdf", "f"),
        ("/dev/xvdp", "p"),
        ("/dev/sdb", ""),
        ("/dev/xvda", ""),
        ("/dev/xvdfg", ""),
        ("/dev/sdf1", ""),
    ],
)
def test_each_letter_for_data_volumes_has_a_port(device: str, port: str) -> None:
    assert slots.port(device) == port


def test_each_port_has_an_address_of_its_own_that_a_rule_of_udev_names() -> None:
    devices = [word for word in slots.arguments() if word.startswith("pcie-root-port")]
    addresses = [word.partition("addr=")[2].partition(",")[0] for word in devices]
    assert len(set(addresses)) == len(slots.PORTS)
    rules = list(slots.udev_rules())
    assert [f"/0000:00:{address}/" in rule for address, rule in zip(addresses, rules, strict=True)] == [True] * 11
    assert 'SYMLINK+="sdf xvdf"' in rules[0]


class FakeQemu:
    """A QEMU that answers on a control socket, and has disks."""

    def __init__(self, folder: Path) -> None:
        self.devices: set[str] = set()
        self.nodes: set[str] = set()
        self.sets: dict[int, list[dict[str, str]]] = {}
        self.asked: list[str] = []
        self.size = 0
        self.keeps = False
        """True if the guest's kernel does not release disks."""
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / qmp.SOCKET))
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listening.accept()
            except OSError:
                return
            with line:
                line.sendall(b'{"QMP": {}}\n')
                while True:
                    text, fds, _, _ = socket.recv_fds(line, 65536, 1)
                    if not text:
                        break
                    for fd in fds:
                        os.close(fd)
                    request = json.loads(text)
                    self.asked.append(request["execute"])
                    answer = self._answer(request["execute"], request["arguments"], bool(fds))
                    line.sendall(json.dumps(answer).encode() + b"\n")

    def _answer(self, command: str, given: dict[str, Any], has_file: bool) -> dict[str, Any]:
        match command:
            case "qom-list":
                return {"return": [{"name": name} for name in self.devices]}
            case "query-named-block-nodes":
                return {"return": [{"node-name": name} for name in self.nodes]}
            case "query-fdsets":
                return {"return": [{"fdset-id": number, "fds": fds} for number, fds in self.sets.items()]}
            case "query-block":
                return {"return": []}
            case "add-fd":
                assert has_file
                number = given.get("fdset-id", 7)
                self.sets.setdefault(number, []).append({"opaque": given["opaque"]})
                return {"return": {"fdset-id": number}}
            case "remove-fd":
                del self.sets[given["fdset-id"]]
            case "blockdev-add":
                self.nodes.add(given["node-name"])
            case "blockdev-del":
                self.nodes.discard(given["node-name"])
            case "device_add":
                assert given["drive"] in self.nodes
                self.devices.add(given["id"])
            case "block_resize":
                assert given["node-name"] in self.nodes
                self.size = given["size"]
            case "device_del" if not self.keeps:
                self.devices.discard(given["id"])
        return {"return": {}}


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[FakeQemu]:
    fake = FakeQemu(tmp_path)
    yield fake
    fake.close()


def test_a_disk_is_passed_open_and_nothing_of_it_is_left_when_it_is_unplugged(qemu: FakeQemu, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    for _ in range(2):
        slots.plug(tmp_path, disk, "vol0", "f")
    assert (qemu.devices, qemu.nodes, len(qemu.sets[7])) == ({"disk-vol0"}, {"file-vol0"}, 2)
    assert qemu.asked.count("device_add") == 1
    for _ in range(2):
        slots.unplug(tmp_path, "vol0")
    assert (qemu.devices, qemu.nodes, qemu.sets) == (set(), set(), {})


def test_a_disk_that_the_guest_does_not_release_is_busy(
    qemu: FakeQemu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "UNPLUG_SECONDS", 0.1)
    (tmp_path / "disk").write_bytes(b"")
    slots.plug(tmp_path, tmp_path / "disk", "vol0", "f")
    qemu.keeps = True
    with pytest.raises(DiskBusy, match="does not release"):
        slots.unplug(tmp_path, "vol0")
    qemu.keeps = False
    slots.unplug(tmp_path, "vol0")
    assert qemu.nodes == set()


def test_a_disk_is_shown_its_new_size(qemu: FakeQemu, tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"")
    slots.plug(tmp_path, tmp_path / "disk", "vol0", "f")
    slots.resize(tmp_path, "vol0", 4096)
    assert qemu.size == 4096
