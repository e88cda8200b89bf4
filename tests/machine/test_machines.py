"""Containers that boot: what is inside, how they end, and what they let in."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from imagepipe.local.disks.files import Disks
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import Ingress
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.store import Store
from tests.machine.guests import SSH, Guest, NewGuest, leftovers, until

pytestmark = pytest.mark.machine


def refuses(guest: Guest, port: int = 22) -> bool:
    try:
        guest.connected(port).close()
    except OSError:
        return True
    return False


def serves(guest: Guest, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{guest.machine.address}:{port}/etc/hostname", timeout=2) as page:
            return bool(page.read())
    except OSError:
        return False


def check_file_system(disk: Path) -> None:
    done = subprocess.run(["e2fsck", "-fn", str(disk)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_machine_boots_to_a_verified_login_and_stops_without_a_trace(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    assert guest.id in driver.running()
    assert guest.run("id -un; sudo id -un").split() == ["admin", "root"]
    assert guest.run("cloud-init status --wait").strip().endswith("status: done")
    assert guest.run("hostname").strip() == "a-guest"
    assert guest.run("systemctl --failed --no-legend") == ""
    assert guest.run("sudo cat /etc/ssh/ssh_host_ed25519_key.pub").startswith(guest.host.public_line)
    assert guest.run("ls /etc/ssh/ssh_host_*_key").split() == ["/etc/ssh/ssh_host_ed25519_key"]
    assert guest.run("curl -sI $(grep -om1 'http[^ ]*' /etc/apt/sources.list) | head -1").startswith("HTTP/")
    guest.run("echo written | sudo tee /root/mark; sync")
    driver.stop(guest.id)
    assert guest.id not in driver.running()
    assert leftovers(tmp_path) == []
    check_file_system(guest.root)
    read = subprocess.run(["debugfs", "-R", "cat /root/mark", str(guest.root)], capture_output=True, check=True)
    assert read.stdout == b"written\n"


def test_a_stopped_machine_starts_again_with_its_disk_and_keeps_its_console(
    driver: ContainerDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    guest.run("echo kept > kept")
    driver.stop(guest.id)
    assert b"login" in driver.console(guest.id).lower() or b"ssh" in driver.console(guest.id).lower()
    driver.start(guest.machine, [SSH])
    assert guest.run("cat kept") == "kept\n"
    driver.stop(guest.id)
    driver.forget(guest.id)
    assert driver.console(guest.id) == b""


def test_a_machine_that_reboots_itself_comes_back_as_the_same_instance(
    driver: ContainerDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    guest.run("cloud-init status --wait")
    first, keys = guest.run("cat /proc/sys/kernel/random/boot_id; uptime -s"), guest.run("cat .ssh/authorized_keys")
    init = MachineGroup(guest.id).init()
    guest.run("sudo nohup sh -c 'sleep 0.2; systemctl reboot' >/dev/null 2>&1 &")
    until(lambda: MachineGroup(guest.id).init() not in (init, None))
    assert guest.run("cat /proc/sys/kernel/random/boot_id; uptime -s") != first
    assert guest.run("cat .ssh/authorized_keys") == keys
    assert guest.run("ls /var/lib/cloud/instances").split() == [guest.id]


def test_a_reboot_from_outside_boots_it_again(driver: ContainerDriver, new_guest: NewGuest) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    guest.run("true")
    init = MachineGroup(guest.id).init()
    driver.reboot(guest.id)
    until(lambda: MachineGroup(guest.id).init() not in (init, None))
    assert guest.run("cloud-init status --wait").strip().endswith("status: done")


def test_a_machine_that_powers_itself_off_is_cleaned_up_and_reported(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    ended: list[str] = []
    driver.on_exit(ended.append)
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    guest.run("sudo nohup sh -c 'sleep 0.2; systemctl poweroff' >/dev/null 2>&1 &")
    until(lambda: ended == [guest.id])
    assert driver.running() == frozenset()
    assert leftovers(tmp_path) == []
    check_file_system(guest.root)


def test_a_machine_that_is_stopped_is_not_reported_as_ended_by_itself(
    driver: ContainerDriver, new_guest: NewGuest
) -> None:
    ended: list[str] = []
    driver.on_exit(ended.append)
    guest = new_guest()
    driver.start(guest.machine, [])
    driver.stop(guest.id, force=True)
    driver.stop(guest.id)  # again is success
    assert ended == []


def test_a_stop_by_force_loses_no_synced_write_and_leaves_a_clean_file_system(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    guest.run("echo synced | sudo tee /root/mark; sync")
    driver.stop(guest.id, force=True)
    assert leftovers(tmp_path) == []
    check_file_system(guest.root)


def test_a_machine_whose_supervisor_is_killed_is_cleaned_up(
    driver: ContainerDriver, new_guest: NewGuest, store: Store, tmp_path: Path
) -> None:
    ended: list[str] = []
    driver.on_exit(ended.append)
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    for pid in MachineGroup(guest.id).processes():
        if Path(f"/proc/{pid}/comm").read_text() == "sh\n":
            subprocess.run(["kill", f"-{signal.SIGKILL}", str(pid)], check=True)
            break
    until(lambda: ended == [guest.id])
    assert leftovers(tmp_path) == []


def test_ports_are_closed_until_a_rule_opens_them_and_closed_again_without_it(
    driver: ContainerDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    guest.run("sudo systemd-run --unit=web python3 -m http.server 8080 --directory /")
    assert not serves(guest, 8080)
    driver.set_ingress(guest.id, [SSH, Ingress("tcp", 8080, 8080, "0.0.0.0/0")])
    until(lambda: serves(guest, 8080))
    driver.set_ingress(guest.id, [SSH, Ingress("tcp", 8080, 8080, "203.0.113.0/24")])
    assert not serves(guest, 8080)
    driver.set_ingress(guest.id, [])
    assert refuses(guest)


def test_a_rule_for_all_ports_opens_those_on_which_the_machine_listens(
    driver: ContainerDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [Ingress("-1", -1, -1, "0.0.0.0/0")])
    guest.run("sudo systemd-run --unit=web python3 -m http.server 8080 --directory /")
    until(lambda: serves(guest, 8080))
    guest.run("sudo systemctl stop web")
    until(lambda: not serves(guest, 8080))


def test_a_second_disk_is_there_under_ec2s_name_and_keeps_what_is_written(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest(further=("/dev/xvdf",))
    driver.start(guest.machine, [SSH])
    guest.run("sudo mkfs.ext4 -q /dev/xvdf && sudo mount /dev/xvdf /mnt && echo data | sudo tee /mnt/data")
    root_device = guest.run("findmnt -no SOURCE /").strip()
    assert guest.run(f"test -b {root_device} && test -b /dev/xvda && echo yes") == "yes\n"
    driver.stop(guest.id)
    assert leftovers(tmp_path) == []
    second = guest.machine.disks[1].path
    check_file_system(second)
    read = subprocess.run(["debugfs", "-R", "cat /data", str(second)], capture_output=True, check=True)
    assert read.stdout == b"data\n"


def test_the_disks_of_a_quiesced_machine_are_consistent_and_it_goes_on_afterwards(
    driver: ContainerDriver, new_guest: NewGuest, store: Store
) -> None:
    guest = new_guest(further=("/dev/xvdf",))
    disks = Disks(store.disks)
    driver.start(guest.machine, [SSH])
    guest.run("sudo mkfs.ext4 -q /dev/xvdf && sudo mount /dev/xvdf /mnt")
    writer = "while :; do date >> $HOME/log; date | sudo tee -a /mnt/log >/dev/null; done"
    guest.run(f"nohup sh -c '{writer}' >/dev/null 2>&1 & echo started")
    with driver.quiesced(guest.id):
        for at, disk in enumerate(guest.machine.disks):
            disks.snapshot(disk.path.stem, f"snap-{at}")
    check_file_system(disks.snapshot_path("snap-0"))
    check_file_system(disks.snapshot_path("snap-1"))
    before = int(guest.run("wc -l < log"))
    until(lambda: int(guest.run("wc -l < log")) > before)


def test_the_machines_root_cannot_open_other_disks_of_the_computer(
    driver: ContainerDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    said = guest.run("sudo mknod /tmp/disk b 254 0 2>&1 && sudo head -c1 /tmp/disk || true")
    assert "Operation not permitted" in said


def test_a_machine_is_thawed_when_reading_its_disks_fails(driver: ContainerDriver, new_guest: NewGuest) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    guest.run("true")
    with pytest.raises(ZeroDivisionError), driver.quiesced(guest.id):
        raise ZeroDivisionError
    guest.run("echo on | sudo tee /root/on && sync")


def test_a_disk_that_is_no_file_system_is_refused_and_nothing_is_left(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    guest.root.write_bytes(bytes(1 << 20))
    with pytest.raises(MachineError, match=f"starting {guest.id}: mounting"):
        driver.start(guest.machine, [SSH])
    assert driver.running() == frozenset()
    assert leftovers(tmp_path) == []


def test_a_port_that_the_computer_uses_is_named_and_nothing_is_left(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    with closing(socket.socket()) as taken:
        taken.bind((guest.machine.address, 22))
        taken.listen()
        with pytest.raises(MachineError, match="forwarding tcp port 22 of"):
            driver.start(guest.machine, [SSH])
    assert leftovers(tmp_path) == []


def test_a_port_that_a_service_has_of_every_address_is_opened_beside_it(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    with closing(socket.socket()) as service:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind(("0.0.0.0", 0))  # a port that nobody has, of any address
        port = service.getsockname()[1]
        service.listen()
        rules = [SSH, Ingress("tcp", port, port, "0.0.0.0/0")]
        driver.start(guest.machine, rules)
        guest.run(f"sudo systemd-run --unit=web python3 -m http.server {port} --directory /")
        until(lambda: serves(guest, port))
        driver.set_ingress(guest.id, [SSH])
        assert not serves(guest, port)
        driver.set_ingress(guest.id, rules)
        until(lambda: serves(guest, port))
        driver.stop(guest.id)
    assert leftovers(tmp_path) == []


def test_user_data_stays_the_callers_own(driver: ContainerDriver, new_guest: NewGuest) -> None:
    guest = new_guest(user_data="#!/bin/sh\necho ran > /root/ran\n")
    driver.start(guest.machine, [SSH])
    until(lambda: b"-----END SSH HOST KEY KEYS-----" in driver.console(guest.id))
    assert re.search(rb"ssh-ed25519 \S+ ", driver.console(guest.id))
    until(lambda: b"finished at" in driver.console(guest.id))
    driver.stop(guest.id)
    read = subprocess.run(["debugfs", "-R", "cat /root/ran", str(guest.root)], capture_output=True, check=True)
    assert read.stdout == b"ran\n"


def test_many_machines_start_at_once(driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    guests = [new_guest() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda guest: driver.start(guest.machine, [SSH]), guests))
        names = list(pool.map(lambda guest: guest.run("sudo id -un").strip(), guests))
        list(pool.map(lambda guest: driver.stop(guest.id), guests))
    assert names == ["root"] * 6
    assert leftovers(tmp_path) == []


def test_what_does_not_run_cannot_be_asked(driver: ContainerDriver) -> None:
    for ask in (driver.reboot, lambda name: driver.set_ingress(name, [])):
        with pytest.raises(MachineError, match="i-none does not run"):
            ask("i-none")
    driver.stop("i-none")
    driver.forget("i-none")
    assert driver.console("i-none") == b""


def test_the_seed_is_read_by_root_alone_and_is_not_on_the_disk(driver: ContainerDriver, new_guest: NewGuest) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    assert guest.run("cat /run/imagepipe-seed/user-data 2>&1 || true").strip().endswith("Permission denied")
    assert "ed25519_private" in guest.run("sudo cat /run/imagepipe-seed/user-data")
    guest.run("cloud-init status --wait; sudo cloud-init clean --logs")
    driver.stop(guest.id)
    listed = subprocess.run(["debugfs", "-R", "ls /run", str(guest.root)], capture_output=True, check=True, text=True)
    assert "imagepipe" not in listed.stdout
