"""QEMU: guests with their own kernel, and boot loader where they have one. Software emulation makes each boot slow, so
few are made, and each is looked at thoroughly.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from imagepipe.local.disks.base_image import BaseImage
from imagepipe.local.disks.files import Disks
from imagepipe.local.host import loop
from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.host.foreign import is_foreign, mark
from imagepipe.local.machines.auto import AutoDriver
from imagepipe.local.machines.driver import Ingress, Metadata
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from imagepipe.local.machines.qemu import supervisor
from imagepipe.local.machines.qemu.driver import QemuDriver, qemu_folder
from imagepipe.local.machines.sshd.driver import SshdDriver
from imagepipe.local.store import Store
from tests.machine.bakery import Bakery
from tests.machine.guests import SSH, Guest, NewGuest, leftovers, until
from tests.machine.test_loopback import service

pytestmark = pytest.mark.machine

BOOT_SECONDS = 240.0  # measured 34 s on an idle machine, 85 s on a busy one
TOKEN = "curl -sX PUT http://169.254.169.254/latest/api/token -H 'X-aws-ec2-metadata-token-ttl-seconds: 60'"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def qemu(store: Store) -> Iterator[QemuDriver]:
    driver = QemuDriver(store.machines)
    try:
        yield driver
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()


def check_file_system(disk: Path) -> None:
    done = subprocess.run(["e2fsck", "-fn", str(disk)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def start_and_kill(store: Store, guest: Guest) -> None:
    """Start the guest in another process, and kill that once QEMU runs."""
    wanted = store.root / "wanted.pickle"
    wanted.write_bytes(pickle.dumps((guest.machine, [SSH])))
    command = [sys.executable, str(Path(__file__).with_name("drive.py")), str(store.machines), str(wanted), "qemu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"starting\n"
            assert process.stdout.readline() == b"started\n"
        finally:
            process.kill()


def fetched(guest: Guest, *, tries: int) -> str:
    """What the guest's own web server answers, if it does."""
    url = f"http://{guest.machine.address}:8080/hostname"
    command = ["curl", "-s", "-m", "10", "--retry", str(tries), "--retry-all-errors", url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def users_of_qemu(guest: Guest) -> list[set[str]]:
    """The users, groups and capabilities of the guest's QEMU, as /proc has them."""
    [pid] = [
        pid for pid in MachineGroup(guest.id).processes() if "qemu-system" in Path(f"/proc/{pid}/comm").read_text()
    ]
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return [set(status[name].split()) for name in ("Uid", "Gid", "Groups", "CapEff", "CapPrm", "NoNewPrivs")]


@pytest.mark.emulated
def test_a_bare_file_system_boots_its_own_kernel_and_a_reboot_takes_the_newest(
    store: Store, new_guest: NewGuest, tmp_path: Path, stack: ExitStack
) -> None:
    guest: Guest = new_guest(further=("/dev/sdf",), size_gib=10)
    guest.machine = replace(guest.machine, metadata=Metadata({"instance-id": guest.id}))
    opened, closed = stack.enter_context(service()), stack.enter_context(service())
    (store.root / "port").write_text(f"{opened}\n")

    # The process that started it is killed; the next one of the store takes the guest over.
    start_and_kill(store, guest)
    driver = QemuDriver(store.machines)
    try:
        assert driver.running() == {guest.id}

        # A login on which the host key was checked, cloud-init to its end, and a kernel that is not this computer's.
        assert guest.run("id -un; sudo id -un", within=BOOT_SECONDS).split() == ["admin", "root"]
        assert guest.run("cloud-init status --wait").strip().endswith("status: done")
        assert "cloud-amd64" in guest.run("uname -r")
        assert "cloud-amd64" not in os.uname().release
        assert guest.run("hostname; systemctl --failed --no-legend").split() == ["a-guest"]
        listing = f'curl -s -H "X-aws-ec2-metadata-token: $({TOKEN})" http://169.254.169.254/latest/meta-data/'
        assert guest.run(listing) == "instance-id"
        assert int(guest.run("df --output=size -BG / | tail -1").strip().rstrip("G")) >= 9
        assert guest.run("lsblk -bno SIZE $(readlink -f /dev/sdf)").strip() == str(1 << 30)

        # QEMU is not root, and no other guest's user either.
        user = str(supervisor.user_of(guest.machine.address))
        none = {"0000000000000000"}
        assert users_of_qemu(guest) == [{user}, {user}, set(), none, none, {"1"}]

        # Of this computer's loopback, it reaches the endpoint alone.
        assert guest.run(f"curl -s -m 20 http://169.254.169.254:{opened}/") == "secret"
        for address in ("10.0.2.2", "10.0.3.2", "10.0.2.100", "169.254.169.254"):
            assert guest.run(f"curl -s -m 5 http://{address}:{closed}/ || echo no") == "no\n", address

        # Its ports are those that the group opens.
        guest.run("sudo systemd-run --quiet --working-directory=/etc python3 -m http.server 8080")
        assert fetched(guest, tries=0) == ""
        driver.set_ingress(guest.id, [SSH, Ingress("tcp", 8080, 8080, "127.0.0.1/32")])
        assert fetched(guest, tries=8) in ("a-guest", "localhost")
        driver.set_ingress(guest.id, [SSH])
        assert fetched(guest, tries=0) == ""

        # While it stands still, nothing is written, and what there is is consistent.
        disks = Disks(store.disks)
        with driver.quiesced(guest.id):
            disks.snapshot(guest.root.stem, "snap-still")
        still = copy_of(disks.snapshot_path("snap-still"))
        # Its journal is replayed, as after a power cut; 1 is "mended", 4 and more would be left errors.
        assert subprocess.run(["e2fsck", "-fp", str(still)], capture_output=True, check=False).returncode in (0, 1)
        check_file_system(still)

        # A kernel that was installed meanwhile is the one that a reboot takes, as there is no boot loader to ask.
        first = guest.run("cat /proc/sys/kernel/random/boot_id")
        guest.run(
            "cd /boot && sudo cp vmlinuz-$(uname -r) vmlinuz-newer && echo newer | sudo tee -a vmlinuz-newer"
            " && sudo ln -sfn boot/vmlinuz-newer /vmlinuz && sync"
        )
        driver.reboot(guest.id)
        until(lambda: not answers(guest), within=BOOT_SECONDS)
        assert guest.run("cat /proc/sys/kernel/random/boot_id", within=BOOT_SECONDS) != first
        assert (qemu_folder(store.machines) / guest.id / "kernel").read_bytes().endswith(b"newer\n")
        assert guest.run("ls /var/lib/cloud/instances").split() == [guest.id]
        guest.run("echo written | sudo tee /root/mark; sync")
        assert b"cloud-init" in driver.console(guest.id)

        driver.stop(guest.id)
        assert leftovers(tmp_path) == []
        check_file_system(guest.root)
        read = subprocess.run(["debugfs", "-R", "cat /root/mark", str(guest.root)], capture_output=True, check=True)
        assert read.stdout == b"written\n"
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()


def test_a_bare_file_system_that_was_imported_goes_to_qemu_and_is_never_mounted_here(
    store: Store, new_guest: NewGuest, tmp_path: Path
) -> None:
    imported, beside = new_guest(), new_guest(further=("/dev/sdf",))
    mark(imported.root)
    mark(beside.machine.disks[1].path)
    driver = AutoDriver(store.machines)
    try:
        for guest in (imported, beside):
            driver.start(guest.machine, [SSH])
            assert users_of_qemu(guest)[0] == {str(supervisor.user_of(guest.machine.address))}
            assert not loop.devices_of(frozenset(disk.path for disk in guest.machine.disks))
            driver.stop(guest.id, force=True)
        assert is_foreign(beside.root), "its system could have written any file system there"
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()
    for other in (ContainerDriver(store.machines), SshdDriver(store.machines)):
        with closing(other), pytest.raises(MachineError, match="was imported"):
            other.start(imported.machine, [SSH])
    assert leftovers(tmp_path) == []


def copy_of(disk: Path) -> Path:
    copy = disk.with_suffix(".copy")
    subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
    copy.chmod(0o600)
    return copy


def answers(guest: Guest) -> bool:
    try:
        guest.connected().close()
    except (OSError, EOFError, paramiko.SSHException):
        return False
    return True


def test_a_supervisor_that_is_killed_takes_its_guest_with_it(
    qemu: QemuDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    ended: list[str] = []
    qemu.on_exit(ended.append)
    guest = new_guest()
    qemu.start(guest.machine, [SSH])
    process = next(
        pid
        for pid in MachineGroup(guest.id).processes()
        if b"imagepipe.local.machines.qemu.supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(process, signal.SIGKILL)
    until(lambda: ended == [guest.id])
    assert leftovers(tmp_path) == []


def test_a_disk_that_nothing_can_boot_from_is_an_error_that_names_it(
    qemu: QemuDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    subprocess.run(["debugfs", "-w", "-R", "rm /vmlinuz", str(guest.root)], check=True, capture_output=True)
    with pytest.raises(Exception, match="without a kernel of its own") as told:
        qemu.start(guest.machine, [SSH])
    assert str(guest.root) in str(told.value)
    assert leftovers(tmp_path) == []


def test_the_default_takes_containers_for_bare_file_systems_and_qemu_for_boot_loaders(
    store: Store, base: BaseImage, new_guest: NewGuest, tmp_path: Path
) -> None:
    disk = base.as_disk()
    assert disk is not None
    driver = AutoDriver(store.machines)
    try:
        bare, whole = new_guest(), new_guest(of=disk, size_gib=8)
        driver.start(bare.machine, [SSH])
        driver.start(whole.machine, [SSH])
        assert driver.running() == {bare.id, whole.id}
        assert bare.run("systemd-detect-virt").strip() == "systemd-nspawn"
        assert any(
            Path(f"/proc/{pid}/comm").read_text().startswith("qemu") for pid in MachineGroup(whole.id).processes()
        )
        driver.stop(whole.id, force=True)
        driver.stop(bare.id)
        assert driver.running() == frozenset()
    finally:
        for machine_id in driver.running():
            driver.stop(machine_id, force=True)
        driver.close()
    assert leftovers(tmp_path) == []


WHOLE = """\
imagepipe: 1
name: whole
source: {ami: {name: "debian-disk-12-amd64-*", owners: ["136693071363"]}}
launch:
  region: us-east-1
  block_devices: [{device: /dev/xvda, size_gib: 9}]
  ssh: {timeout: 8m}
provision:
  - shell: |
      findmnt -no SOURCE /
      uname -r
      echo baked | sudo tee /etc/baked
test:
  - shell: |
      grep baked /etc/baked
      test "$(df --output=size -BG / | tail -1 | tr -dc 0-9)" -ge 8
      ls /boot/grub/grub.cfg
output: {name: "whole-{{ build.id }}"}
"""


@pytest.mark.emulated
def test_a_disk_with_a_boot_loader_is_baked_tested_and_grows_on_qemu(bakery: Bakery) -> None:
    spec = bakery.write("whole.yaml", WHOLE)
    process = bakery.start("build", str(spec), "--local", "--format", "json")
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    lines = [event["text"] for event in bakery.events() if event["event"] == "Line"]
    assert "/dev/vda1" in lines
    assert any(line.endswith("-cloud-amd64") for line in lines)
    (image,) = json.loads(out)["images"]
    disk = Disks(bakery.store.disks).snapshot_path(image["snapshots"][0])
    listed = subprocess.run(["sfdisk", "--json", str(disk)], capture_output=True, text=True, check=True).stdout
    parts = json.loads(listed)["partitiontable"]["partitions"]
    assert max(part["size"] for part in parts) * 512 > 8 << 30  # the partition grew with its volume


@pytest.mark.emulated
def test_a_cloud_image_in_qcow2_is_imported_and_boots(bakery: Bakery, base: BaseImage) -> None:
    assert base.disk_path is not None
    file = bakery.folder / "debian-12-genericcloud-amd64.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(base.disk_path), str(file)], check=True)
    imported = bakery("local", "images", "import", str(file), "--name", "from-elsewhere")
    assert imported.code == 0, imported.err
    assert "boots by its own boot loader, in QEMU" in imported.err
    image = imported.out.strip()
    file.unlink()
    assert not list((bakery.store.disks / "imports").glob("*"))
    with bakery.instance(image, "us-east-1", seconds=BOOT_SECONDS) as booted:
        assert "cloud-amd64" in booted.sh("uname -r")
        assert booted.sh("findmnt -no SOURCE /") == "/dev/vda1"
