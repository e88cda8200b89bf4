"""The process that holds a QEMU machine, in its own namespaces.

It is started as `python -m imagepipe.local.machines.qemu.supervisor FOLDER`.

It is for QEMU what the shell of `nspawn/supervisor` is for a container. It outlives the cloud's process and boots the
machine again when that reboots: a new QEMU, as a bare file system may have got a new kernel meanwhile. QEMU's own user
network is inside the machine's network namespace, so all that the guest reaches goes through slirp4netns.
169.254.169.254 is an address of that namespace: a service here answers it, without a conflict with the guest's ports.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imagepipe.files import write_atomically
from imagepipe.local.disks.contents import is_bare
from imagepipe.local.host import rootless
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines import endpoint
from imagepipe.local.machines.driver import ARM, Machine
from imagepipe.local.machines.guest import imds, slirp
from imagepipe.local.machines.guest.seed import seed_documents
from imagepipe.local.machines.nspawn.supervisor import MASKED
from imagepipe.local.machines.qemu import boards, kernel, qmp, slots
from imagepipe.local.machines.qemu.passed_files import PassedFiles

FILE = "vm.json"
FORWARDS = "forwards"
REBOOT = "reboot"
CONSOLE = "console.log"
RESOLV = "resolv.conf"
KVM_NODE = "kvm"
FIRST_USER = 1_900_000_000
"""The first user id for QEMU, above those of passwd files, of subuid files and of systemd (its UIDS-GIDS)."""
GUEST = "10.0.3.15"  # from QEMU's DHCP server; slirp4netns's network is another one, outside of it
NET = "10.0.3.0/24"
# A plain user's QEMU has no other user to be: it is the user, without the capabilities that root has in the namespace.
WITHOUT_PRIVILEGES = ("setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs")
SERIAL_CHARACTERS = 20  # of a virtio disk; an EBS volume's id without its dash has as many
UDEV_RULES = "".join(f"{rule}\n" for rule in slots.udev_rules())
# Units on which an emulated guest spends its first minute. They are masked by the kernel's arguments, not on the disk.
TRIMMED = (
    *MASKED, "getty-static.service", "getty.target", "serial-getty@ttyS0.service", "systemd-binfmt.service",
    "cloud-init-hotplugd.socket",
)  # fmt: skip
UNTRIMMED = ("systemd-remount-fs.service", "console-getty.service")  # masks that only a container needs
KERNEL_WORDS = (
    "root=/dev/vda rootfstype=ext4 rw console=ttyS0 net.ifnames=0 quiet loglevel=1 systemd.show_status=false"
    " mitigations=off audit=0 apparmor=0 no_timer_check tsc=reliable fsck.mode=skip"
)


def write(folder: Path, machine: Machine, *, accelerator: str, namespace: int) -> None:
    """Write the supervisor's input, readable by the owner alone, as user data holds keys.

    `namespace` is the file descriptor of this computer's network that the process inherits.
    """
    document = {
        "id": machine.id,
        "architecture": machine.architecture,
        "accelerator": accelerator,
        "user": None if rootless.is_plain_user() else user_of(machine.address),
        "endpoint-port": endpoint.port_of(folder.parent),
        "namespace": namespace,
    }
    write_atomically(folder / FILE, json.dumps(document | _changing_part(machine)))


def rewrite(folder: Path, machine: Machine) -> None:
    """Write the machine's disks and metadata as they are now; each boot reads them again."""
    document = json.loads((folder / FILE).read_text(encoding="utf-8"))
    write_atomically(folder / FILE, json.dumps(document | _changing_part(machine)))


def _changing_part(machine: Machine) -> dict[str, Any]:
    seed = seed_documents(machine.seed, links=links(machine), udev_rules=UDEV_RULES)
    return {
        "disks": [
            {"path": str(disk.path), "serial": serial(disk.path), "port": slots.port(disk.device) if at else ""}
            for at, disk in enumerate(machine.disks)
        ],
        "imds": imds.document(machine)
        | {"seed": {name: base64.b64encode(body).decode() for name, body in seed.items()}},
    }


def user_of(address: str) -> int:
    """Return the user id of a machine's QEMU. It is derived from the machine's address, and nobody else has it."""
    return FIRST_USER + int.from_bytes(socket.inet_aton(address)[2:], "big")


def serial(disk: Path) -> str:
    """Name a disk for the guest: `/dev/disk/by-id/virtio-vol0123456789abcdef0`, as EBS volumes show their ids."""
    return disk.stem.replace("-", "")[:SERIAL_CHARACTERS]


def links(machine: Machine) -> dict[str, str]:
    """Map EC2's name of each disk to the name that the guest's udev shows."""
    return {disk.device: f"/dev/disk/by-id/virtio-{serial(disk.path)}" for disk in machine.disks}


def forwarding(port: slirp.Port) -> str:
    """Format the forwarding of a port from the namespace to the guest for QEMU."""
    return f"{port.protocol}:{slirp.GUEST}:{port.number}-{GUEST}:{port.number}"


def qemu_command(
    document: Mapping[str, Any], folder: Path, forwards: Sequence[str], files: PassedFiles, *, events: int, control: int
) -> list[str]:
    """Return the command of one boot, run in the machine's folder. Raises MachineError if there is nothing to boot."""
    console = files.name(CONSOLE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    root = Path(document["disks"][0]["path"])
    net = f"user,id=net,net={NET}" + "".join(f",hostfwd={each}" for each in forwards)
    command = [
        *boards.arguments(document, folder, files),
        "-chardev", f"file,id=console,path={console},append=on", "-serial", "chardev:console",
        "-chardev", f"socket,id=events,fd={events}", "-mon", "chardev=events,mode=control",
        "-chardev", f"socket,id=control,fd={control},server=on,wait=off", "-mon", "chardev=control,mode=control",
        "-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile=",
        "-device", "virtio-rng-pci",
        # Where cloud-init of any image looks for its datasource (its documentation, "NoCloud").
        "-smbios", f"type=1,serial=ds=nocloud-net;s=http://{imds.ADDRESS}/{imds.SEED_PATH}/",
    ]  # fmt: skip
    command += slots.arguments()
    free = set(slots.PORTS)
    for at, disk in enumerate(document["disks"]):
        path = files.name(disk["path"], *slots.MODES, opaque=disk["serial"])
        port = f",bus={slots.bus(disk['port'])}" if disk["port"] in free else ""
        free.discard(disk["port"])
        command += [
            # A disk is one machine's here, and with its lock QEMU 7.2 refuses to resize a file that was passed open.
            "-drive", f"id={slots.node(disk['serial'])},file={path},format=raw,if=none,cache=unsafe,discard=unmap,"
            "detect-zeroes=unmap,file.locking=off",
            "-device", f"virtio-blk-pci,id={slots.device(disk['serial'])},drive={slots.node(disk['serial'])},"
            f"serial={disk['serial']}" + port + (",bootindex=1" if at == 0 else ""),
        ]  # fmt: skip
    if is_bare(root):
        linux, initrd = kernel.extract(root, folder)
        masked = " ".join(f"systemd.mask={unit}" for unit in TRIMMED if unit not in UNTRIMMED)
        command += ["-kernel", files.plain(linux), "-initrd", files.plain(initrd)]
        command += ["-append", f"{KERNEL_WORDS} {masked}"]
    elif document.get("architecture") != ARM:
        command += ["-vga", "std"]  # GRUB's menu needs a display; on arm64 it has the serial console
    return [*command, *files.arguments]


def main(arguments: Sequence[str]) -> int:
    """FOLDER: make the network's inner side, write `ready`, wait for the word, and run the machine to its end."""
    folder = Path(arguments[0])
    os.chdir(folder)
    document = json.loads(Path(FILE).read_text(encoding="utf-8"))
    dialer = None
    if document["user"] is None:  # a plain user: unshare gave us all namespaces but this one
        dialer = endpoint.dialer(document)
        rootless.unshare_network()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{imds.ADDRESS}/32", "dev", "lo"], check=True)
    # QEMU looks up names for the guest with slirp4netns's resolver, because the computer's is not reachable from here.
    Path(RESOLV).write_text("nameserver 10.0.2.3\n", encoding="utf-8")
    Path(RESOLV).chmod(0o644)
    subprocess.run(["mount", "--bind", RESOLV, "/etc/resolv.conf"], check=False)
    # QEMU has no capability, and listens on port 22 of this namespace.
    Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0", encoding="ascii")
    Path(KVM_NODE).unlink(missing_ok=True)
    if document["accelerator"] == "kvm" and document["user"] is not None:
        _lend_kvm(int(document["user"]))
    reread = imds.Reread(Path(FILE), part="imds")
    service = imds.server(document["imds"], (imds.ADDRESS, 80), reread)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    endpoint.serve(document, imds.ADDRESS, dialer)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if not sys.stdin.readline():  # who started us is gone
        return 124
    Path(REBOOT).unlink(missing_ok=True)
    while _boot(folder):
        pass
    return 0


def _boot(folder: Path) -> bool:
    """Run one QEMU to its end; tell if the machine is to boot again."""
    own, qemus = socket.socketpair()
    Path(qmp.SOCKET).unlink(missing_ok=True)
    # A driver that finds the control socket plugs a disk in; one that does not find it has written the document before.
    listening = _control_socket()
    document = json.loads(Path(FILE).read_text(encoding="utf-8"))
    forwards = Path(FORWARDS).read_text(encoding="utf-8").split() if Path(FORWARDS).exists() else []
    files, user = PassedFiles(), document["user"]
    try:
        events, control = files.take(qemus.detach()), files.take(listening)
        process = subprocess.Popen(
            [*(WITHOUT_PRIVILEGES if user is None else ()),
             *qemu_command(document, folder, forwards, files, events=events, control=control)],
            stdin=subprocess.DEVNULL, stdout=sys.stderr, pass_fds=files.fds,
            user=user, group=user, extra_groups=None if user is None else (),
        )  # fmt: skip
    finally:
        files.close()
    reason = ""
    try:
        line = qmp.Connection(own)
        for event in line.events():
            if event["event"] == "SHUTDOWN":
                reason = str(event["data"].get("reason", ""))
        line.close()
    except (StopIteration, MachineError):  # it did not even start; the reason is in the log
        pass
    process.wait()
    Path(qmp.SOCKET).unlink(missing_ok=True)  # QEMU's user cannot
    was_asked = Path(REBOOT).exists()
    Path(REBOOT).unlink(missing_ok=True)
    return reason == "guest-reset" or (was_asked and reason in ("guest-shutdown", "host-qmp-system-reset"))


def _control_socket() -> int:
    """Bind the driver's control socket, because QEMU's user may not create a file here."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(qmp.SOCKET)  # relative to the machine's folder: a path has at most 107 bytes
    listening.listen(8)
    return listening.detach()


def _lend_kvm(user: int) -> None:
    """Show /dev/kvm as a node that QEMU's user may open, in this process's own mount namespace."""
    os.mknod(KVM_NODE, stat.S_IFCHR | 0o600, Path("/dev/kvm").stat().st_rdev)
    os.chown(KVM_NODE, user, user)
    subprocess.run(["mount", "--bind", KVM_NODE, "/dev/kvm"], check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
