"""Further addresses of machines that run, with each driver."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.local.machines.registry import open_driver
from imagepipe.local.store import Store
from tests.machine.guests import SSH, Guest, NewGuest, leftovers

pytestmark = pytest.mark.machine


def at(guest: Guest, address: str) -> Guest:
    return replace(guest, machine=replace(guest.machine, address=address))


def refuses(guest: Guest) -> bool:
    try:
        guest.connected().close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("kind", ["container", "sshd", pytest.param("qemu", marks=pytest.mark.emulated)])
def test_open_ports_answer_at_further_addresses_for_as_long_as_the_machine_has_them(
    store: Store, new_guest: NewGuest, tmp_path: Path, kind: str
) -> None:
    guest = new_guest()
    first, second = (at(guest, f"127.42.{secrets.randbelow(20) + 230}.{number}") for number in (10, 11))
    driver = open_driver(kind, store.machines)
    try:
        driver.start(replace(guest.machine, further_addresses=(first.machine.address,)), [SSH])
        assert guest.run("id -un", within=300) == "admin\n"
        assert first.run("id -un") == "admin\n"
        driver.set_addresses(guest.id, [second.machine.address])
        assert refuses(first)
        assert second.run("id -un") == "admin\n"
        driver.set_ingress(guest.id, [])
        assert refuses(second)
        driver.set_ingress(guest.id, [SSH])
        driver.set_addresses(guest.id, [])
        assert refuses(second)
        assert guest.run("id -un") == "admin\n"
    finally:
        driver.stop(guest.id, force=True)
        driver.close()
    assert leftovers(tmp_path) == []
