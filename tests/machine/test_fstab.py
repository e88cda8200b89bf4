"""The disks of /etc/fstab: mounted at every boot, as an instance mounts them, and before what needs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from imagepipe.local.host.cgroup import MachineGroup
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.nspawn.driver import ContainerDriver
from tests.machine.guests import SSH, Guest, NewGuest, leftovers, until

pytestmark = pytest.mark.machine

UUID = "5d0a1c5e-2f0b-4b8e-9a75-0c1f0e2d3b4a"


def format_disk(guest: Guest, *, label: str = "data") -> None:
    disk = guest.machine.disks[1].path
    subprocess.run(["mkfs.ext4", "-q", "-F", "-U", UUID, "-L", label, str(disk)], check=True)


def write(guest: Guest, tmp_path: Path, **files: str) -> None:
    """Write files of /etc on a disk that no machine uses; `__` is a slash."""
    for name, text in files.items():
        source = tmp_path / name
        source.write_text(text)
        path = f"/etc/{name.replace('__', '/').replace('_dot_', '.')}"
        requests = [f"rm {path}", f"write {source} {path}"]
        subprocess.run(
            ["debugfs", "-w", "-f", "/dev/stdin", str(guest.root)],
            input="\n".join(requests), text=True, capture_output=True, check=True,
        )  # fmt: skip


def reboot(driver: ContainerDriver, guest: Guest) -> None:
    init = MachineGroup(guest.id).init()
    driver.reboot(guest.id)
    until(lambda: MachineGroup(guest.id).init() not in (init, None))


ROOT = "LABEL=rootfs / ext4 defaults 0 1\n"


@pytest.mark.parametrize(
    ("line", "label"),
    [
        (f"UUID={UUID} /srv/data ext4 defaults,nofail,x-systemd.device-timeout=30s 0 2", "data"),
        ('LABEL="data" /srv/my\\040data ext4 defaults 0 2', "data"),
        ("LABEL=my\\040data /srv/data ext4 defaults 0 2", "my data"),
        ("/dev/sdf /srv/data ext4 nofail 0 2", "data"),
        ("/dev/xvdf\t/srv/data\text4\tdefaults\t0\t2", "data"),
        ("/dev/nvme1n1 /srv/data auto noatime", "data"),
        (f"/dev/disk/by-uuid/{UUID} /srv/data ext4 defaults 0 0", "data"),
        ("/dev/disk/by-label/my\\x20data /srv/data ext4 defaults 0 0", "my data"),
        ("LABEL=data /srv/data ext4 noauto,x-systemd.automount 0 0", "data"),
    ],
)
def test_a_disk_of_fstab_is_mounted_at_boot_and_after_a_reboot(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path, line: str, label: str
) -> None:
    guest = new_guest(further=("/dev/sdf",))
    format_disk(guest, label=label)
    write(guest, tmp_path, fstab=f"{ROOT}# a comment\n\n{line}\n")
    where = line.split()[1].replace("\\040", " ")
    driver.start(guest.machine, [SSH])
    ask = f"ls '{where}'; findmnt -no FSTYPE,LABEL -t ext4 '{where}'; systemctl --failed --no-legend"
    assert "lost+found" in guest.run(ask)
    guest.run(f"echo data | sudo tee '{where}/file'")
    reboot(driver, guest)
    assert guest.run(f"cat '{where}/file'; systemctl --failed --no-legend") == "data\n"
    driver.stop(guest.id)
    read = subprocess.run(["debugfs", "-R", "cat /file", str(guest.machine.disks[1].path)], capture_output=True)
    assert read.stdout == b"data\n"
    assert leftovers(tmp_path) == []


def test_a_disk_that_was_formatted_after_launch_is_mounted_by_the_next_boot_and_by_a_reload(
    driver: ContainerDriver, new_guest: NewGuest
) -> None:
    guest = new_guest(further=("/dev/sdf", "/dev/sdg"))
    driver.start(guest.machine, [SSH])
    guest.run(
        "sudo mkfs.ext4 -q -L late /dev/nvme2n1 && echo LABEL=late /srv/late ext4 nofail 0 2 | sudo tee -a /etc/fstab"
    )
    guest.run("sudo systemctl daemon-reload && sudo systemctl start srv-late.mount && mountpoint /srv/late")
    reboot(driver, guest)
    assert guest.run("findmnt -no SOURCE /srv/late") in ("/dev/sdg\n", "/dev/xvdg\n", "/dev/nvme2n1\n")


def test_a_disk_that_is_not_there_stops_the_boot_only_without_nofail(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path
) -> None:
    guest = new_guest()
    write(guest, tmp_path, fstab=f"{ROOT}UUID={UUID} /srv/data ext4 nofail 0 2\nLABEL=x /srv/x ext4 noauto 0 2\n")
    driver.start(guest.machine, [SSH])
    assert guest.run("mountpoint -q /srv/data || echo no") == "no\n"
    assert f"UUID={UUID}, to be mounted at /srv/data, was not found".encode() in driver.console(guest.id)
    other = new_guest()
    write(other, tmp_path, fstab=f"{ROOT}UUID={UUID} /srv/data ext4 defaults 0 2\n")
    driver.start(other.machine, [SSH])
    until(lambda: b"emergency mode" in driver.console(other.id))


@pytest.mark.parametrize(
    "what", ["PARTUUID=1234-01", "/dev/mapper/vg-data", "/dev/vg/data", "/dev/sdf1", "/dev/nvme1n1p1", "/dev/md0"]
)
def test_a_disk_that_no_container_can_mount_is_named_at_launch(
    driver: ContainerDriver, new_guest: NewGuest, tmp_path: Path, what: str
) -> None:
    guest = new_guest()
    write(guest, tmp_path, fstab=f"{ROOT}{what} /srv/data ext4 defaults 0 2\n")
    with pytest.raises(MachineError, match=f"/etc/fstab mounts {what} at /srv/data: a container .*QEMU"):
        driver.start(guest.machine, [SSH])
    assert leftovers(tmp_path) == []
    write(guest, tmp_path, fstab=f"{ROOT}{what} /srv/data ext4 defaults,nofail 0 2\n")
    driver.start(guest.machine, [SSH])
    assert guest.run("mountpoint -q /srv/data || echo no") == "no\n"
    assert f"/etc/fstab mounts {what} at /srv/data".encode() in driver.console(guest.id)


DATABASE = """[Unit]
Description=a database
{needs}
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c 'mountpoint /srv/data >/var/log/database; date >/srv/data/database'
[Install]
WantedBy=multi-user.target
"""
VOLUME = Path(__file__).parents[2] / "provisioners/data-volume/volume.sh"


@pytest.mark.parametrize("needed_by", ["", "database.service"])
def test_a_database_does_not_start_before_its_data_is_mounted(
    driver: ContainerDriver, new_guest: NewGuest, needed_by: str
) -> None:
    guest = new_guest(further=("/dev/sdf",))
    driver.start(guest.machine, [SSH])
    guest.run(f"cat >volume.sh <<'end'\n{VOLUME.read_text()}\nend")
    guest.run(f"sudo sh volume.sh /dev/sdf /srv/data ext4 root:root '{needed_by}'")
    unit = "/etc/systemd/system/database.service"
    guest.run(f"sudo tee {unit} <<'end'\n{DATABASE.format(needs='')}\nend\nsudo systemctl enable database 2>&1")
    reboot(driver, guest)
    guest.run("cloud-init status --wait")
    assert guest.run("cat /var/log/database") == "/srv/data is a mountpoint\n"
    # Without the volume the machine boots; and what needs the data does not start.
    guest.run("sudo rm /var/log/database; sudo sed -i 's/^UUID=[0-9a-f]*/UUID=00000000/' /etc/fstab")
    reboot(driver, guest)
    guest.run("cloud-init status --wait")
    assert guest.run("systemctl is-active database || true") == ("inactive\n" if needed_by else "active\n")
    assert guest.run("test -e /srv/data/database && echo yes || echo no") == ("no\n" if needed_by else "yes\n")
