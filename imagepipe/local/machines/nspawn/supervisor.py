"""The shell that a container lives in: it holds the mount, the loop devices and the network namespace.

They are in namespaces of its own and end with it. So nothing is left of a machine once its processes are gone, in
whatever order they were killed. It outlives the cloud's process, and boots the machine again when that reboots.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagepipe.files import write_atomically
from imagepipe.local.machines import fstab
from imagepipe.local.machines.driver import Machine
from imagepipe.local.machines.guest import imds
from imagepipe.local.machines.launch import start

DISKS = "disks"
"""The file of the further disks: an option of nspawn a line. Each boot reads it again."""
SEED_INSIDE = "/run/imagepipe-seed"
REBOOT = 133  # systemd-nspawn(1), EXIT STATUS, with --keep-unit: the container asked for a reboot

# The metadata service has a namespace of its own, joined to the machine's by a pair of interfaces. If this kernel
# has no such pairs, or the service does not start, the machine boots without it.
METADATA = f"""
metadata() {{
  [ -e "$1" ] || return 0
  unshare --net "$2" -m imagepipe.local.machines.guest.imds "$1" $$ "$3" </dev/null >/dev/null 2>&1 &
  own=$!
  for attempt in 1 2 3 4 5 6 7 8 9 10; do
    [ "$(readlink /proc/$own/ns/net)" = "$(readlink /proc/$$/ns/net)" ] || break
    sleep 0.01
  done
  ip link add {imds.INTERFACE} type veth peer name {imds.INTERFACE} netns $own || {{ kill $own; return 0; }}
  ip address add {imds.GUEST_SIDE} dev {imds.INTERFACE} && ip link set {imds.INTERFACE} up
}}
"""

# Arguments: the root's device, where to mount it, the console's file, the metadata service's file and Python, the file
# of the further disks, then nspawn's.
# Standard output says that all is ready; standard input brings the command to boot, or ends with the cloud's process.
# The tmpfs hides files that nspawn leaves under /run. `$$` is this shell: because of the loop, nspawn is its child.
HOLD = f"""{METADATA}
mount -o noatime "$1" "$2" && ip link set lo up || exit 125
mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn || exit 125
metadata "$4" "$5" "$(cut -d' ' -f22 /proc/$$/stat)"
echo ready
read -r word || {{ umount "$2"; exit 124; }}
root=$2 console=$3 disks=$6; shift 6
exec </dev/null >>"$console" 2>&1
while :; do
  systemd-nspawn $(cat "$disks") --directory="$root" --network-namespace-path=/proc/$$/ns/net "$@"
  code=$?
  [ $code = {REBOOT} ] || break
done
umount "$root"
exit $code
"""

# systemd and cloud-init in a container take PID 1's arguments for the kernel's command line: settings made here
# leave nothing on the disk.
MASKED = (
    "systemd-remount-fs.service",  # fails: no udev, so no LABEL=rootfs
    "console-getty.service",  # nobody can type
    # Background work that would hold apt's lock, and use the disk, while a build needs them.
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer",
)  # fmt: skip


def names_of(machine: Machine, devices: Sequence[str]) -> dict[str, str]:
    """Map names in /dev to the devices of further disks: an instance's names, and the kernel's own."""
    names: dict[str, str] = {}
    for at, (disk, device) in enumerate(zip(machine.disks, devices, strict=True)):
        if at:
            names |= dict.fromkeys([device, *fstab.names(disk.device, at)], device)
    return names


def write_names(folder: Path, names: Mapping[str, str]) -> None:
    """Write the names of the next boot's further disks."""
    lines = [f"--bind={device}:{name}\n" for name, device in names.items()]
    write_atomically(folder / DISKS, "".join(lines))


def read_names(folder: Path) -> dict[str, str]:
    """Read the names that `write_names` wrote."""
    lines = (folder / DISKS).read_text(encoding="utf-8").split()
    pairs = (line.removeprefix("--bind=").split(":") for line in lines)
    return {name: device for device, name in pairs}


def nspawn_arguments(machine: Machine, root_device: str, seed: Path) -> list[str]:
    """Return options and PID 1's arguments. The root's device is shown under its own name and under the instance's.

    The seed is shown under /run, which is memory: nothing of it touches the disk. It is not served by the cloud's
    process, because a machine must finish its boot even if that process is killed.
    """
    shown_seed, generator = (
        str(path).replace("\\", "\\\\").replace(":", "\\:")  # as nspawn wants a path that has colons
        for path in (seed, seed.with_name(fstab.FILE))
    )
    return [
        "--quiet", "--register=no", "--keep-unit", "--settings=no", "--boot", f"--machine={machine.id}",
        "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=read-only",
        # The network namespace is the machine's own, so it may configure it like any machine.
        "--capability=CAP_NET_ADMIN,CAP_NET_RAW",
        f"--bind-ro={shown_seed}:{SEED_INSIDE}",
        f"--bind-ro={generator}:{fstab.INSIDE}",
        # Without a user namespace, this capability would let the machine's root open the computer's own disks.
        "--drop-capability=CAP_MKNOD",
        f"--bind-ro={root_device}", f"--bind-ro={root_device}:{machine.disks[0].device}",
        "network-config=disabled",
        # By this id cloud-init recognizes, at a reboot without the seed, that it is the same instance.
        f"ds=nocloud;i={machine.id};s={SEED_INSIDE}/",
        *(f"systemd.mask={unit}" for unit in MASKED),
    ]  # fmt: skip


def launch(
    machine: Machine, root_device: str, *, join: Sequence[str], folder: Path, held: Sequence[int]
) -> subprocess.Popen[bytes]:
    """Start the shell; return when it has mounted the root and waits for the command to boot. Raises MachineError.

    `held` are file descriptors that it keeps open as long as it lives.
    """
    command = [
        *join, "unshare", "--mount", "--net", "--propagation", "slave",
        "sh", "-c", HOLD, f"imagepipe-{machine.id}", root_device, str(folder / "root"), str(folder / "console.log"),
        str(folder / imds.FILE), sys.executable, str(folder / DISKS),
        *nspawn_arguments(machine, root_device, folder / "seed"),
    ]  # fmt: skip
    return start(command, folder=folder, held=held, doing=f"mounting {machine.disks[0].path} for {machine.id}")
