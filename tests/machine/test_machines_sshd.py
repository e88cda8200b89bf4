"""Machines that are an sshd and nothing else: what they keep, how they end, and what they let in."""

from __future__ import annotations

import gzip
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

import pytest

from imagepipe.cli.local_store import terminate_everything
from imagepipe.local.client import connect
from imagepipe.local.daemon import rendezvous
from imagepipe.local.disks.base_image import ensure_base
from imagepipe.local.disks.files import Disks
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines import records
from imagepipe.local.machines.driver import Ingress
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.machines.sshd.driver import SshdDriver
from imagepipe.local.store import Store
from tests.machine.bakery import Bakery
from tests.machine.guests import SSH, Guest, NewGuest, host_key_user_data, leftovers, until

pytestmark = pytest.mark.machine

OPEN = Ingress("tcp", 8080, 8080, "0.0.0.0/0")
SERVER = "nohup python3 -m http.server 8080 --directory / >/dev/null 2>&1 & echo started"


@contextmanager
def opened(store: Store) -> Iterator[SshdDriver]:
    """The driver over a store, and all of its machines ended after it."""
    driver = SshdDriver(store.machines)
    try:
        yield driver
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()


@pytest.fixture
def sshd(store: Store) -> Iterator[SshdDriver]:
    with opened(store) as driver:
        yield driver


def refuses(guest: Guest) -> bool:
    try:
        guest.connected().close()
    except OSError:
        return True
    return False


def serves(guest: Guest, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{guest.machine.address}:{port}/etc/hostname", timeout=2) as page:
            return bool(page.read())
    except OSError:
        return False


def on_disk(guest: Guest, path: str) -> bytes:
    assert subprocess.run(["e2fsck", "-fn", str(guest.root)], capture_output=True, check=False).returncode == 0
    return subprocess.run(["debugfs", "-R", f"cat {path}", str(guest.root)], capture_output=True, check=True).stdout


def test_a_machine_lets_the_user_in_by_the_key_that_it_was_given_and_leaves_no_trace(
    sshd: SshdDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    sshd.start(guest.machine, [SSH])
    assert sshd.running() == {guest.id}
    assert guest.run("id -un; sudo id -un; hostname").split() == ["admin", "root", "a-guest"]
    assert guest.run("cloud-init status --wait").strip().endswith("status: done")
    assert guest.run("ls /etc/ssh/ssh_host_*_key").split() == ["/etc/ssh/ssh_host_ed25519_key"]
    assert guest.host.public_line.encode() in sshd.console(guest.id)
    guest.run("echo written | sudo tee /root/mark")
    sshd.stop(guest.id)
    assert sshd.running() == frozenset()
    assert leftovers(tmp_path) == []
    assert on_disk(guest, "/root/mark") == b"written\n", "a stop writes everything"
    sshd.forget(guest.id)
    assert sshd.console(guest.id) == b""


def test_a_stopped_machine_starts_again_as_the_same_instance_with_its_disk(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    sshd.start(guest.machine, [SSH])
    guest.run("echo kept > kept; echo '# mine' >> .ssh/authorized_keys")
    for force in (False, True):
        sshd.stop(guest.id, force=force)
        sshd.start(guest.machine, [SSH])
        assert guest.run("cat kept; tail -1 .ssh/authorized_keys") == "kept\n# mine\n"
    assert guest.run("ls /var/lib/cloud/instances").split() == [guest.id]


@pytest.mark.parametrize("how", ["from outside", "reboot", "reboot -f"], ids=lambda how: how)
def test_a_reboot_is_another_boot_of_the_same_disk(sshd: SshdDriver, new_guest: NewGuest, how: str) -> None:
    guest = new_guest()
    sshd.start(guest.machine, [SSH])
    guest.run("echo kept > kept; sudo touch /run/mark")
    init = MachineGroup(guest.id).init()
    if how == "from outside":
        sshd.reboot(guest.id)
    else:
        guest.run(f"sudo nohup sh -c 'sleep 0.2; {how}' >/dev/null 2>&1 &")
    until(lambda: MachineGroup(guest.id).init() not in (init, None))
    assert guest.run("cat kept; ls /run").startswith("kept\n")
    assert "mark" not in guest.run("ls /run")
    assert sshd.running() == {guest.id}


def test_a_machine_that_powers_itself_off_is_cleaned_up_and_reported(
    sshd: SshdDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    ended: list[str] = []
    sshd.on_exit(ended.append)
    guest = new_guest()
    sshd.start(guest.machine, [SSH])
    guest.run("sudo nohup sh -c 'sleep 0.2; poweroff' >/dev/null 2>&1 &")
    until(lambda: ended == [guest.id])
    assert sshd.running() == frozenset()
    assert leftovers(tmp_path) == []


def test_a_stop_ends_what_goes_on_in_a_machine_and_is_not_reported_as_its_own_doing(
    sshd: SshdDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    ended: list[str] = []
    sshd.on_exit(ended.append)
    guest = new_guest()
    sshd.start(guest.machine, [SSH])
    guest.run("sudo nohup sh -c 'trap \"\" TERM HUP; while :; do date >>/root/log; done' >/dev/null 2>&1 & echo")
    until(lambda: guest.run("sudo cat /root/log || true") != "")
    sshd.stop(guest.id)
    sshd.stop(guest.id)  # again is success
    assert ended == []
    assert leftovers(tmp_path) == []
    assert on_disk(guest, "/root/log")


def test_ports_are_closed_until_a_rule_opens_them_and_closed_again_without_it(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    sshd.start(guest.machine, [])
    assert refuses(guest)
    sshd.set_ingress(guest.id, [SSH])
    guest.run(SERVER)
    assert not serves(guest, 8080)
    sshd.set_ingress(guest.id, [SSH, OPEN])
    until(lambda: serves(guest, 8080))
    sshd.set_ingress(guest.id, [SSH, Ingress("tcp", 8080, 8080, "203.0.113.0/24")])
    assert not serves(guest, 8080)
    sshd.set_ingress(guest.id, [])
    assert refuses(guest)


def test_a_rule_for_all_ports_opens_ssh_and_those_on_which_the_machine_listens(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    sshd.start(guest.machine, [Ingress("-1", -1, -1, "0.0.0.0/0")])
    guest.run(SERVER)
    until(lambda: serves(guest, 8080))


def test_a_machine_sees_neither_the_computers_processes_nor_its_network_nor_its_disks(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest, other = new_guest(), new_guest()
    sshd.start(guest.machine, [SSH])
    sshd.start(other.machine, [SSH])
    other.run(SERVER)
    assert guest.run("pgrep -fc [h]ttp.server || true") == "0\n"
    assert guest.run("curl -s -m 2 http://127.0.0.1:8080/ || echo nobody") == "nobody\n"
    assert "Operation not permitted" in guest.run("sudo mknod /tmp/disk b 254 0 2>&1 || true")
    assert guest.run("sudo ls /proc/1/root/root").split() == [], "PID 1 has the machine's own root"


def test_a_second_disk_is_there_under_ec2s_name_and_stands_still_with_the_root(
    sshd: SshdDriver, new_guest: NewGuest, store: Store, tmp_path: Path
) -> None:
    guest, disks = new_guest(further=("/dev/xvdf",)), Disks(store.disks)
    sshd.start(guest.machine, [SSH])
    guest.run("sudo mkfs.ext4 -q /dev/xvdf && sudo mount /dev/xvdf /mnt")
    guest.run("nohup sh -c 'while :; do date >> log; date | sudo tee -a /mnt/log; done' >/dev/null 2>&1 & echo")
    with sshd.quiesced(guest.id):
        for at, disk in enumerate(guest.machine.disks):
            disks.snapshot(disk.path.stem, f"snap-{at}")
    for at in (0, 1):
        check = ["e2fsck", "-fn", str(disks.snapshot_path(f"snap-{at}"))]
        assert subprocess.run(check, capture_output=True, check=False).returncode == 0
    before = int(guest.run("wc -l < log"))
    until(lambda: int(guest.run("wc -l < log")) > before)
    sshd.stop(guest.id)
    assert leftovers(tmp_path) == []


def test_a_port_that_a_service_has_of_every_address_is_opened_beside_it(sshd: SshdDriver, new_guest: NewGuest) -> None:
    guest = new_guest()
    with closing(socket.socket()) as service:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind(("0.0.0.0", 0))  # a port that nobody has, of any address
        port = service.getsockname()[1]
        service.listen()
        sshd.start(guest.machine, [SSH, Ingress("tcp", port, port, "0.0.0.0/0")])
        guest.run(SERVER.replace("8080", str(port)))
        until(lambda: serves(guest, port))
        sshd.set_ingress(guest.id, [SSH])
        assert not serves(guest, port)


def test_a_port_that_somebody_has_is_named_and_nothing_is_left(
    sshd: SshdDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    with closing(socket.socket()) as taken:
        taken.bind((guest.machine.address, 22))
        taken.listen()
        with pytest.raises(MachineError, match=f"listening on port 22 of {guest.machine.address}"):
            sshd.start(guest.machine, [SSH])
    assert leftovers(tmp_path) == []


def test_a_disk_that_is_no_file_system_is_refused_and_nothing_is_left(
    sshd: SshdDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    guest.root.write_bytes(bytes(1 << 20))
    with pytest.raises(MachineError, match=f"starting {guest.id}: mounting"):
        sshd.start(guest.machine, [SSH])
    assert leftovers(tmp_path) == []


def test_user_data_in_parts_and_compressed_is_read_and_what_is_not_done_is_said(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    whole = MIMEMultipart()
    users = "users:\n  - default\n  - name: deploy\n    sudo: ALL=(ALL) NOPASSWD:ALL\n"
    config = f"#cloud-config\nhostname: named\npackages: [nginx]\n{users}"
    whole.attach(MIMEText(host_key_user_data(guest.host).partition("\n")[2], "cloud-config"))
    whole.attach(MIMEText(config, "cloud-config"))
    whole.attach(MIMEText("#!/bin/sh\nid -un >/var/ran\n", "x-shellscript"))
    seed = replace(guest.machine.seed, user_data=gzip.compress(whole.as_bytes()))
    guest.machine = replace(guest.machine, seed=seed)
    sshd.start(guest.machine, [SSH])
    assert guest.run("hostname; sudo -u deploy sudo id -un").split() == ["named", "root"]
    until(lambda: guest.run("cat /var/ran 2>/dev/null || true") == "root\n")
    assert b"not done at this boot, as there is no cloud-init: packages of the cloud-config" in sshd.console(guest.id)


def test_a_machine_that_is_given_no_host_key_makes_one_and_shows_it_on_its_console(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest = new_guest(user_data="")
    sshd.start(guest.machine, [SSH])
    shown = re.search(rb"-----BEGIN SSH HOST KEY KEYS-----\nssh-ed25519 (\S+).*\n-----END", sshd.console(guest.id))
    assert shown
    scanned = subprocess.run(["ssh-keyscan", "-t", "ed25519", guest.machine.address], capture_output=True, check=True)
    assert shown[1] in scanned.stdout


def test_many_machines_start_at_once(sshd: SshdDriver, new_guest: NewGuest, tmp_path: Path) -> None:
    guests = [new_guest() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda guest: sshd.start(guest.machine, [SSH]), guests))
        assert list(pool.map(lambda guest: guest.run("sudo id -un").strip(), guests)) == ["root"] * len(guests)
        list(pool.map(lambda guest: sshd.stop(guest.id), guests))
    assert leftovers(tmp_path) == []


# The driver's process is killed.


@contextmanager
def other_process(store: Store, guest: Guest) -> Iterator[subprocess.Popen[bytes]]:
    """A driver that starts this guest in a process of its own."""
    wanted = store.root / "wanted.pickle"
    wanted.write_bytes(pickle.dumps((guest.machine, [SSH])))
    script = Path(__file__).with_name("drive.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(store.machines), str(wanted), "sshd"], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"starting\n"
            yield process
        finally:
            process.kill()


def start_and_kill(store: Store, guest: Guest) -> None:
    with other_process(store, guest) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"


def test_a_machine_whose_process_was_killed_is_adopted_with_all_that_can_be_asked_of_it(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    assert guest.run("echo still there") == "still there\n"
    with opened(store) as driver:
        ended: list[str] = []
        driver.on_exit(ended.append)
        assert driver.running() == {guest.id}
        assert b"is up" in driver.console(guest.id)
        guest.run(SERVER)
        driver.set_ingress(guest.id, [SSH, OPEN])
        until(lambda: serves(guest, 8080))
        init = MachineGroup(guest.id).init()
        driver.reboot(guest.id)
        until(lambda: MachineGroup(guest.id).init() not in (init, None))
        with driver.quiesced(guest.id):
            Disks(store.disks).snapshot(guest.root.stem, "snap-adopted")
        guest.run("sudo nohup sh -c 'sleep 0.2; poweroff' >/dev/null 2>&1 &")
        until(lambda: ended == [guest.id])
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("milliseconds", [0, 5, 10, 20, 30, 40, 50, 65, 80, 100])
def test_a_start_that_is_killed_half_way_leaves_nothing_or_a_whole_machine(
    store: Store, new_guest: NewGuest, tmp_path: Path, milliseconds: int
) -> None:
    guest = new_guest()
    with other_process(store, guest):
        time.sleep(milliseconds / 1000)
    with opened(store) as driver:
        if driver.running():
            assert guest.run("id -un") == "admin\n"
            driver.stop(guest.id)
        assert leftovers(tmp_path) == []
        driver.start(guest.machine, [SSH])
        assert guest.run("id -un") == "admin\n"


def test_a_machine_that_was_killed_with_its_process_is_cleared_away(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    start_and_kill(store, guest)
    MachineGroup(guest.id).kill()
    with opened(store) as driver:
        until(lambda: driver.running() == frozenset())
        assert records.read(store.machines / "sshd" / guest.id) is None
        assert leftovers(tmp_path) == []


def test_a_machine_of_another_driver_is_left_alone_and_its_disk_is_not_taken(
    store: Store, new_guest: NewGuest, driver: ContainerDriver
) -> None:
    guest = new_guest()
    driver.start(guest.machine, [SSH])
    with opened(store) as other:
        assert other.running() == frozenset()
        with pytest.raises(MachineError, match="its disks are in use"):
            other.start(guest.machine, [SSH])
    assert guest.run("id -un") == "admin\n"
    driver.stop(guest.id)
    with opened(store) as other:
        other.start(guest.machine, [])
        adopting = ContainerDriver(store.machines)
        assert adopting.running() == frozenset()
        adopting.close()


# A whole cloud of them.


@pytest.fixture
def sshd_bakery(tmp_path: Path, base_cache: Path) -> Iterator[Bakery]:
    """imagepipe on a cloud of the test's own, whose machines are an sshd alone."""
    store = Store.open(tmp_path / "store", base_cache=base_cache, driver="sshd")
    ensure_base(store, lambda line: None)
    with connect.connect(store) as cloud:
        bakery = Bakery(tmp_path, store, cloud, env={"IMAGEPIPE_LOCAL_DRIVER": "sshd"})
        yield bakery
        bakery.end()
    with connect.connect(store):
        connect.stop(store, terminate=terminate_everything)
    with opened(store):
        pass


def test_an_image_that_is_built_copied_and_launched_again_has_its_change(sshd_bakery: Bakery, tmp_path: Path) -> None:
    spec = sshd_bakery.spec("quick", "- shell: echo baked >/etc/motd\n  sudo: true\n- reboot: {}\n- shell: hostname")
    baked = sshd_bakery.build(spec)
    assert baked.images.keys() == {"us-east-1", "us-west-2"}
    with sshd_bakery.instance(baked.images["us-west-2"], "us-west-2") as booted:
        assert booted.sh("cat /etc/motd") == "baked"
        assert booted.sh("sudo ls /home/admin/.ssh/authorized_keys | wc -l") == "1"
    assert not [line for line in leftovers(tmp_path) if "daemon.main" not in line]


def test_a_build_goes_on_though_its_cloud_is_killed_and_nothing_is_left(sshd_bakery: Bakery, tmp_path: Path) -> None:
    spec = sshd_bakery.spec("killed", "- shell: sleep 15")
    build = sshd_bakery.start("build", str(spec), "--local", "--format", "json")
    until(
        lambda: any(event["event"] == "StageStarted" and event["stage"] == "step-1" for event in sshd_bakery.events())
    )
    serving_now = rendezvous.current(sshd_bakery.store)
    assert serving_now
    subprocess.run(["kill", f"-{signal.SIGKILL}", str(serving_now.pid)], check=True)
    with connect.connect(sshd_bakery.store):
        _, err = build.communicate(timeout=900)
    assert build.returncode == 0, err
    assert not [line for line in leftovers(tmp_path) if "daemon.main" not in line]


def test_a_machines_root_finds_nothing_of_the_kernels_that_it_can_open_for_writing(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest = new_guest()
    sshd.start(guest.machine, [SSH])
    find = r"""sudo find /proc /sys \( -path '/proc/[0-9]*' -o -path '/proc/sys/net' \) -prune -o \
        -type f -perm /222 -writable -exec test -f {} \; -print"""
    assert guest.run(find) == ""
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger"):
        said = guest.run(f"sudo sh -c ': >>{path}' 2>&1 || true")  # opened, and not a byte written
        assert "Read-only file system" in said or "Directory nonexistent" in said, path
    assert guest.run("sudo cat /proc/kcore /proc/keys /proc/kallsyms 2>/dev/null | head -c1") == ""
    # Its network is its own, and so are its processes and its name.
    guest.run("sudo sh -c ': >>/proc/sys/net/ipv4/ip_forward && : >>/proc/self/oom_score_adj && hostname other'")


def test_the_disks_of_fstab_are_mounted_at_every_boot_and_one_that_is_missing_is_named(
    sshd: SshdDriver, new_guest: NewGuest
) -> None:
    guest = new_guest(further=("/dev/sdf", "/dev/sdg", "/dev/sdh"))
    sshd.start(guest.machine, [SSH])
    guest.run("sudo mkfs.ext4 -q -L one /dev/xvdf; sudo mkfs.ext4 -q /dev/nvme2n1; sudo mkfs.ext4 -q -L three /dev/sdh")
    lines = ["LABEL=one /srv/one ext4 nofail", "/dev/xvdg /srv/my\\040two ext4 defaults 0 2"]
    lines += ["LABEL=three /srv/three ext4 noauto", "LABEL=four /srv/four ext4 defaults"]
    guest.run("sudo tee -a /etc/fstab <<'end'\n" + "\n".join(lines) + "\nend")
    sshd.reboot(guest.id)
    until(lambda: b"LABEL=four is not mounted at /srv/four" in sshd.console(guest.id))
    mounted = guest.run("findmnt -rno TARGET -t ext4").split()
    assert sorted(mounted) == ["/", "/srv/my\\x20two", "/srv/one"]
