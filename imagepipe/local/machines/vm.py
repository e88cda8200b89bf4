"""The process that a QEMU machine lives in: `python -m imagepipe.local.machines.vm FOLDER`, in namespaces of its own.

It is to QEMU what the shell of `supervisor` is to a container. It outlives the cloud's process and boots the machine
again when that reboots: a new QEMU, as a bare file system may have got a new kernel meanwhile. QEMU's own user network
is inside the machine's network namespace, so all that the guest reaches goes through slirp4netns. 169.254.169.254 is an
address of that namespace: a service here answers it, and nothing of the guest's can be in its way.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from imagepipe.local.machines import imds, kernel, network, qmp
from imagepipe.local.machines.api import Machine, MachineError
from imagepipe.local.machines.supervisor import MASKED
from imagepipe.local.seed import seed_documents

FILE = "vm.json"
FORWARDS = "forwards"
REBOOT = "reboot"
CONSOLE = "console.log"
RESOLV = "resolv.conf"
GUEST = "10.0.3.15"  # QEMU's DHCP server gives it; not slirp4netns's net, which is one step further out
NET = "10.0.3.0/24"
SERIAL_CHARACTERS = 20  # of a virtio disk; an EBS volume's id without its dash has as many
# A guest whose processor is software spends its first minute on these; nothing of it is on the disk.
TRIMMED = (
    *MASKED, "getty-static.service", "getty.target", "serial-getty@ttyS0.service", "systemd-binfmt.service",
    "cloud-init-hotplugd.socket",
)  # fmt: skip
UNTRIMMED = ("systemd-remount-fs.service", "console-getty.service")  # of the masks: what a container alone wants
KERNEL_WORDS = (
    "root=/dev/vda rootfstype=ext4 rw console=ttyS0 net.ifnames=0 quiet loglevel=1 systemd.show_status=false"
    " mitigations=off audit=0 apparmor=0 no_timer_check tsc=reliable fsck.mode=skip"
)


def write(folder: Path, machine: Machine, *, accelerator: str) -> None:
    """What the process needs to know; readable by root alone, as user data holds keys."""
    seed = seed_documents(machine.seed, links=links(machine))
    document = {
        "id": machine.id,
        "disks": [{"path": str(disk.path), "serial": serial(disk.path)} for disk in machine.disks],
        "accelerator": accelerator,
        "imds": imds.document(machine)
        | {"seed": {name: base64.b64encode(body).decode() for name, body in seed.items()}},
    }
    fd = os.open(folder / FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(document, file)


def serial(disk: Path) -> str:
    """How the guest knows a disk: `/dev/disk/by-id/virtio-vol0123456789abcdef0`, as EBS volumes show their ids."""
    return disk.stem.replace("-", "")[:SERIAL_CHARACTERS]


def links(machine: Machine) -> dict[str, str]:
    """EC2's name of each disk, and where the guest's udev shows it."""
    return {disk.device: f"/dev/disk/by-id/virtio-{serial(disk.path)}" for disk in machine.disks}


def forwarding(port: network.Port) -> str:
    """QEMU's word for a port that is passed on from the namespace to the guest."""
    return f"{port.protocol}:{network.GUEST}:{port.number}-{GUEST}:{port.number}"


def qemu_command(document: Mapping[str, Any], folder: Path, forwards: Sequence[str], events: int) -> list[str]:
    """QEMU for one boot, run in the machine's folder. Raises MachineError where there is nothing to boot."""
    accelerator = str(document["accelerator"])
    root = Path(document["disks"][0]["path"])
    net = f"user,id=net,net={NET}" + "".join(f",hostfwd={each}" for each in forwards)
    command = [
        "qemu-system-x86_64", "-name", str(document["id"]), "-nodefaults", "-display", "none", "-no-reboot",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-machine", "q35", "-smp", str(min(2, os.cpu_count() or 1)), "-m", "1024",
        *(["-accel", "kvm", "-cpu", "host"] if accelerator == "kvm"
          else ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]),
        "-chardev", f"file,id=console,path={CONSOLE},append=on", "-serial", "chardev:console",
        "-chardev", f"socket,id=events,fd={events}", "-mon", "chardev=events,mode=control",
        "-qmp", f"unix:{qmp.SOCKET},server=on,wait=off",
        "-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile=",
        "-device", "virtio-rng-pci",
        # Where cloud-init of any image looks for its datasource (its documentation, "NoCloud").
        "-smbios", f"type=1,serial=ds=nocloud-net;s=http://{imds.ADDRESS}/{imds.SEED_PATH}/",
    ]  # fmt: skip
    for at, disk in enumerate(document["disks"]):
        path = str(disk["path"]).replace(",", ",,")
        command += [
            "-drive", f"id=disk{at},file={path},format=raw,if=none,cache=unsafe,discard=unmap,detect-zeroes=unmap",
            "-device", f"virtio-blk-pci,drive=disk{at},serial={disk['serial']}" + (",bootindex=1" if at == 0 else ""),
        ]  # fmt: skip
    if kernel.is_bare(root):
        found = kernel.take_out(root, folder)
        masked = " ".join(f"systemd.mask={unit}" for unit in TRIMMED if unit not in UNTRIMMED)
        command += ["-kernel", found.kernel.name, "-initrd", found.initrd.name, "-append", f"{KERNEL_WORDS} {masked}"]
    else:
        command += ["-vga", "std"]  # GRUB's own menu wants one
    return command


def main(arguments: Sequence[str]) -> int:
    """FOLDER: make the network's inner side, say `ready`, wait for the word, and run the machine to its end."""
    folder = Path(arguments[0])
    os.chdir(folder)
    document = json.loads(Path(FILE).read_text(encoding="utf-8"))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{imds.ADDRESS}/32", "dev", "lo"], check=True)
    # The names that QEMU looks up for the guest: slirp4netns's resolver, not the computer's, which is out of reach.
    Path(RESOLV).write_text("nameserver 10.0.2.3\n", encoding="utf-8")
    subprocess.run(["mount", "--bind", RESOLV, "/etc/resolv.conf"], check=False)
    service = imds.server(document["imds"], (imds.ADDRESS, 80))
    threading.Thread(target=service.serve_forever, daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():  # who started us is gone
        return 124
    Path(REBOOT).unlink(missing_ok=True)
    while _boot(document, folder):
        pass
    return 0


def _boot(document: Mapping[str, Any], folder: Path) -> bool:
    """One QEMU, to its end; whether the machine is to boot again."""
    own, qemus = socket.socketpair()
    with suppress(FileNotFoundError):
        Path(qmp.SOCKET).unlink()
    forwards = Path(FORWARDS).read_text(encoding="utf-8").split() if Path(FORWARDS).exists() else []
    process = subprocess.Popen(
        qemu_command(document, folder, forwards, qemus.fileno()),
        stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=(qemus.fileno(),),
    )  # fmt: skip
    qemus.close()
    reason = ""
    try:
        line = qmp.Line(own)
        for event in line.events():
            if event["event"] == "SHUTDOWN":
                reason = str(event["data"].get("reason", ""))
        line.close()
    except (StopIteration, MachineError):  # it did not even start; what it said is in the log
        pass
    process.wait()
    was_asked = Path(REBOOT).exists()
    Path(REBOOT).unlink(missing_ok=True)
    return reason == "guest-reset" or (was_asked and reason in ("guest-shutdown", "host-qmp-system-reset"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
