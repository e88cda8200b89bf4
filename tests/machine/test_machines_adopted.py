"""Machines outlive the process that started them; the next one takes them over, or clears them away."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imagepipe.local.disks.files import Disks
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.machines import records
from imagepipe.local.machines.driver import Ingress
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.store import Store
from tests.machine.guests import SSH, Guest, NewGuest, leftovers, until

pytestmark = pytest.mark.machine

OPEN = Ingress("tcp", 8080, 8080, "0.0.0.0/0")


@contextmanager
def other_process(store: Store, guest: Guest) -> Iterator[subprocess.Popen[bytes]]:
    """A driver that starts this guest in a process of its own."""
    wanted = store.root / "wanted.pickle"
    wanted.write_bytes(pickle.dumps((guest.machine, [SSH])))
    script = Path(__file__).with_name("drive.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(store.machines), str(wanted)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"starting\n"
            yield process
        finally:
            process.kill()


def start_and_kill(store: Store, guest: Guest) -> None:
    """Start the guest in another process, and kill that once the guest runs."""
    with other_process(store, guest) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"


@contextmanager
def next_driver(store: Store) -> Iterator[ContainerDriver]:
    driver = ContainerDriver(store.machines)
    try:
        yield driver
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()


def test_a_machine_whose_process_was_killed_is_adopted_with_all_that_can_be_asked_of_it(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    assert guest.run("echo still there") == "still there\n"
    with next_driver(store) as driver:
        assert driver.running() == {guest.id}
        assert b"systemd" in driver.console(guest.id)
        guest.run("sudo systemd-run --unit=web python3 -m http.server 8080")
        driver.set_ingress(guest.id, [SSH, OPEN])
        with driver.quiesced(guest.id):
            Disks(store.disks).snapshot(guest.root.stem, "snap-adopted")
        driver.stop(guest.id)
        assert driver.running() == frozenset()
        assert leftovers(tmp_path) == []


def test_a_machine_boots_to_its_end_though_its_cloud_was_killed(store: Store, new_guest: NewGuest) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    with next_driver(store):
        assert guest.run("cloud-init status --wait").strip().endswith("status: done")
        assert guest.run("hostname").strip() == "a-guest"


def test_an_adopted_machine_reboots_and_its_poweroff_is_reported(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    ended: list[str] = []
    with next_driver(store) as driver:
        driver.on_exit(ended.append)
        guest.run("cloud-init status --wait")
        init = MachineGroup(guest.id).init()
        driver.reboot(guest.id)
        until(lambda: MachineGroup(guest.id).init() not in (init, None))
        guest.run("sudo nohup sh -c 'sleep 0.2; systemctl poweroff' >/dev/null 2>&1 &")
        until(lambda: ended == [guest.id])
        assert leftovers(tmp_path) == []


def test_a_machine_reboots_while_no_cloud_runs(store: Store, new_guest: NewGuest) -> None:
    guest = new_guest()
    with other_process(store, guest):
        guest.run("cloud-init status --wait")
    init = MachineGroup(guest.id).init()
    guest.run("sudo nohup sh -c 'sleep 0.2; systemctl reboot' >/dev/null 2>&1 &")
    until(lambda: MachineGroup(guest.id).init() not in (init, None))
    assert guest.run("ls /var/lib/cloud/instances").split() == [guest.id]
    with next_driver(store) as driver:
        assert driver.running() == {guest.id}


def test_a_machine_that_ended_while_no_cloud_ran_is_cleared_away(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    guest.run("sudo nohup sh -c 'sleep 0.2; systemctl poweroff' >/dev/null 2>&1 &")
    until(lambda: MachineGroup(guest.id).init() is None)
    with next_driver(store) as driver:
        until(lambda: driver.running() == frozenset())  # its supervisor may be about to end: then it was adopted
        assert records.read(store.machines / guest.id) is None
        assert leftovers(tmp_path) == []


def test_a_machine_that_was_killed_with_its_process_is_cleared_away(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    MachineGroup(guest.id).kill()  # which returns at once: what is still dying may be adopted first
    with next_driver(store) as driver:
        until(lambda: driver.running() == frozenset())
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("milliseconds", [0, 10, 20, 30, 45, 60, 80, 100, 130, 160])
def test_a_start_that_is_killed_half_way_leaves_nothing_or_a_whole_machine(
    store: Store, new_guest: NewGuest, tmp_path: Path, milliseconds: int
) -> None:
    guest = new_guest()
    with other_process(store, guest):
        time.sleep(milliseconds / 1000)
    with next_driver(store) as driver:
        if driver.running():
            assert guest.run("id -un") == "admin\n"
            driver.stop(guest.id)
        assert leftovers(tmp_path) == []
        # What was half made is not in the way of another try.
        driver.start(guest.machine, [SSH])
        driver.stop(guest.id, force=True)


def test_a_machine_that_was_frozen_by_a_killed_process_goes_on(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    guest.run("true")
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from imagepipe.local.machines.nspawn.driver import ContainerDriver\n"
        "driver = ContainerDriver(Path(sys.argv[1]))\n"
        "with driver.quiesced(sys.argv[2]):\n    print('frozen', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store.machines), guest.id], stdout=subprocess.PIPE
    ) as freezer:
        assert freezer.stdout is not None
        assert freezer.stdout.readline() == b"frozen\n"
        freezer.kill()
    guest.run("echo on | sudo tee /root/on && sync")
    with next_driver(store):
        pass
    assert leftovers(tmp_path) == []


def test_a_process_id_that_was_given_to_somebody_else_is_left_alone(store: Store, new_guest: NewGuest) -> None:
    guest = new_guest()
    folder = store.machines / guest.id
    folder.mkdir()
    with subprocess.Popen(["sleep", "60"]) as somebody:
        kept = records.Record(machine=guest.machine)
        records.write(folder, replace(kept, supervisor=records.Process(somebody.pid, started="1")))
        with next_driver(store) as driver:
            assert driver.running() == frozenset()
        assert somebody.poll() is None
        os.kill(somebody.pid, signal.SIGTERM)
