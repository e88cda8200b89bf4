"""Disks that are plugged into machines that run, and out of them, with each driver."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from imagepipe.local.disks.files import Disks
from imagepipe.local.host import loop
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import DiskBusy, MachineError
from imagepipe.local.machines import records
from imagepipe.local.machines.driver import Disk, Driver
from imagepipe.local.machines.registry import open_driver
from imagepipe.local.store import Store
from tests.machine import drive
from tests.machine.guests import GIB, SSH, Guest, NewGuest, leftovers, until

pytestmark = pytest.mark.machine

MOUNTING = ("container", "sshd")
FORMAT = "sudo mkfs.ext4 -q /dev/sdf && sudo mount /dev/sdf /mnt && echo data | sudo tee /mnt/data"


@contextmanager
def opened(store: Store, kind: str) -> Iterator[Driver]:
    """A driver over a store, and all of its machines ended after it."""
    driver = open_driver(kind, store.machines)
    try:
        yield driver
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()


def new_disk(store: Store, guest: Guest, device: str = "/dev/sdf") -> Disk:
    name = f"vol-{guest.id[2:]}-{device[-1]}"
    return Disk(device, Disks(store.disks).create_volume(name, size_bytes=GIB // 8, snapshot_id=None))


def detached(driver: Driver, guest: Guest, device: str = "/dev/sdf") -> bool:
    with suppress(DiskBusy):
        driver.detach(guest.id, device)
        return True
    return False


def contents(disk: Disk) -> bytes:
    return subprocess.run(["debugfs", "-R", "cat /data", str(disk.path)], capture_output=True, check=True).stdout


@pytest.mark.parametrize("kind", MOUNTING)
def test_a_disk_is_plugged_in_used_and_unplugged_while_the_machine_runs(
    store: Store, new_guest: NewGuest, tmp_path: Path, kind: str
) -> None:
    guest = new_guest(further=("/dev/sdg",))
    with opened(store, kind) as driver:
        driver.start(guest.machine, [SSH])
        guest.run("true")
        disk = new_disk(store, guest)
        for _ in range(2):
            driver.attach(guest.id, disk)  # again is success
        guest.run(FORMAT)
        assert guest.run("ls /dev/xvdf /dev/nvme2n1").split() == ["/dev/nvme2n1", "/dev/xvdf"]
        with pytest.raises(DiskBusy, match="/dev/sdf is mounted"):
            driver.detach(guest.id, "/dev/sdf")
        assert guest.run("cat /mnt/data") == "data\n", "a busy disk goes on"
        with driver.quiesced(guest.id):
            assert contents(disk) == b"data\n", "the new disk is frozen with the others"
        Disks(store.disks).grow_volume(disk.path.stem, GIB // 4)
        for device in ("/dev/sdf", guest.machine.disks[0].device):
            driver.resize(guest.id, device)
        assert guest.run("sudo blockdev --getsize64 /dev/sdf").strip() == str(GIB // 4)
        guest.run("sudo umount /mnt; sudo e2fsck -fp /dev/sdf; sudo resize2fs /dev/sdf")
        driver.detach(guest.id, "/dev/sdf")
        assert loop.devices_of(frozenset({disk.path})) == []
        assert contents(disk) == b"data\n"
        assert guest.run("ls /dev/sdf /dev/xvdf 2>/dev/null | wc -l") == "0\n"
        driver.detach(guest.id, "/dev/sdg")  # the disk that it was started with
        driver.detach(guest.id, "/dev/sdg")
        assert guest.run("ls /dev/sdg 2>/dev/null | wc -l") == "0\n"
        with pytest.raises(MachineError, match="the machine runs from it"):
            driver.detach(guest.id, guest.machine.disks[0].device)
        driver.stop(guest.id)
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", MOUNTING)
def test_a_disk_that_a_process_has_open_is_busy_until_it_is_closed(
    store: Store, new_guest: NewGuest, kind: str
) -> None:
    guest = new_guest()
    with opened(store, kind) as driver:
        driver.start(guest.machine, [SSH])
        guest.run("true")
        driver.attach(guest.id, new_disk(store, guest))
        guest.run("sudo sh -c 'sleep 600 </dev/sdf >/dev/null 2>&1 & echo $!' >pid; cat pid")
        assert not detached(driver, guest)
        guest.run("sudo kill $(cat pid)")
        until(lambda: detached(driver, guest))


@pytest.mark.parametrize("kind", MOUNTING)
def test_a_reboot_and_the_next_cloud_keep_the_new_disk_and_a_reboot_frees_a_busy_one(
    store: Store, new_guest: NewGuest, tmp_path: Path, kind: str
) -> None:
    guest = new_guest()
    disk = new_disk(store, guest)
    with cloud_with(store, guest, disk, tmp_path, kind):
        guest.run(f"cloud-init status --wait; {FORMAT}; sync; sudo umount /mnt")
    with opened(store, kind) as adopted:
        assert adopted.running() == {guest.id}
        rebooted(adopted, guest)
        assert guest.run("sudo mount /dev/xvdf /mnt && cat /mnt/data") == "data\n"
        assert not detached(adopted, guest)
        rebooted(adopted, guest)
        until(lambda: detached(adopted, guest))
        assert guest.run("ls /dev/sdf /dev/xvdf 2>/dev/null | wc -l") == "0\n"
    assert leftovers(tmp_path) == []


@contextmanager
def cloud_with(store: Store, guest: Guest, disk: Disk, folder: Path, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """A driver in a process of its own, that starts the machine and attaches the disk; killed at the end."""
    task = folder / "task"
    task.write_bytes(pickle.dumps((guest.machine, [SSH], disk)))
    command = [sys.executable, drive.__file__, str(store.machines), str(task), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.stdout.readline() != b"attached\n":
            assert process.poll() is None
        yield process
        process.kill()


def rebooted(driver: Driver, guest: Guest) -> None:
    init = MachineGroup(guest.id).init()
    driver.reboot(guest.id)
    until(lambda: MachineGroup(guest.id).init() not in (init, None))
    guest.run("true")


@pytest.mark.parametrize("kind", MOUNTING)
@pytest.mark.parametrize("order", ["cloud first", "machine first", "supervisor alone"])
def test_nothing_is_left_of_a_disk_in_whatever_order_processes_are_killed(
    store: Store, new_guest: NewGuest, tmp_path: Path, kind: str, order: str
) -> None:
    guest = new_guest()
    with cloud_with(store, guest, new_disk(store, guest), tmp_path, kind) as cloud:
        guest.run(FORMAT)
        if order == "cloud first":
            cloud.kill()
        if order == "supervisor alone":
            record = records.read(folder_of(store, kind) / guest.id)
            assert record is not None
            assert record.supervisor is not None
            os.kill(record.supervisor.pid, signal.SIGKILL)
        else:
            MachineGroup(guest.id).kill()
    with opened(store, kind) as driver:
        until(lambda: driver.running() == frozenset())
        assert leftovers(tmp_path) == []


def folder_of(store: Store, kind: str) -> Path:
    return store.machines / "sshd" if kind == "sshd" else store.machines


def test_a_link_in_the_machines_dev_leads_to_no_file_of_this_computer(store: Store, new_guest: NewGuest) -> None:
    guest = new_guest()
    with opened(store, "sshd") as driver:
        driver.start(guest.machine, [SSH])
        guest.run("sudo ln -s /dev/null /dev/sdf")
        with pytest.raises(MachineError, match="a file of its own at /dev/sdf"):
            driver.attach(guest.id, new_disk(store, guest))
        assert guest.run("readlink /dev/sdf") == "/dev/null\n"
        assert loop.devices_of(frozenset({new_disk(store, guest).path})) == []


@pytest.mark.emulated
def test_a_virtual_machine_takes_and_releases_disks_while_it_runs_and_keeps_them_at_a_reboot(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest(further=("/dev/sdg", "/dev/sdq"))
    with opened(store, "qemu") as driver:
        driver.start(guest.machine, [SSH])
        guest.run("cloud-init status --wait", within=300)
        disk = new_disk(store, guest)
        for _ in range(2):
            driver.attach(guest.id, disk)
        until(lambda: guest.run("ls /dev/sdf 2>/dev/null || true") != "")
        guest.run(f"{FORMAT}; sync; sudo umount /mnt")
        with pytest.raises(MachineError, match=r"/dev/sd\[f-p\]"):
            driver.attach(guest.id, new_disk(store, guest, "/dev/sdz"))
        for path, device in ((disk.path, "/dev/sdf"), (guest.machine.disks[2].path, "/dev/sdq")):
            Disks(store.disks).grow_volume(path.stem, 2 * GIB)
            driver.resize(guest.id, device)
            assert guest.run(f"for _ in 1 2 3 4 5; do sleep 1; sudo blockdev --getsize64 {device}; done | tail -1") == (
                f"{2 * GIB}\n"
            )
        driver.detach(guest.id, "/dev/sdg")
        until(lambda: guest.run("lsblk -dno SERIAL | grep -c ^vol || true").strip() == "3")
        assert not detached(driver, guest, "/dev/sdq"), "it was started in a slot that cannot be unplugged"
        before = guest.run("cat /proc/sys/kernel/random/boot_id")
        guest.run("sudo nohup sh -c 'sleep 0.5; systemctl reboot' >/dev/null 2>&1 &")
        until(lambda: guest.run("cat /proc/sys/kernel/random/boot_id", within=300) != before, within=300)
        assert guest.run("lsblk -dno SERIAL | grep -c ^vol").strip() == "2", "the root and the new disk"
        until(lambda: detached(driver, guest, "/dev/sdq"))
        assert guest.run("sudo mount /dev/sdf /mnt && cat /mnt/data && sudo umount /mnt") == "data\n"
        driver.detach(guest.id, "/dev/sdf")
        assert contents(disk) == b"data\n"
        driver.attach(guest.id, disk)
        driver.stop(guest.id, force=True)
    assert leftovers(tmp_path) == []
