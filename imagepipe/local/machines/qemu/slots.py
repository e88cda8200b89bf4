"""The PCI slots of a virtual machine's further disks, which are plugged in and out while it runs.

On a q35 machine only PCI Express root ports take devices while it runs, and the ports themselves are there from the
start (QEMU, docs/pcie.txt). Each letter of EC2's device names for data volumes (EC2 user guide, "Device names for
volumes": /dev/sd[f-p]) has a port of its own. So a rule of udev knows the name of a disk by its port.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imagepipe.local.host.errors import DiskBusy, MachineError
from imagepipe.local.host.waiting import tries
from imagepipe.local.machines.fstab import DRIVE
from imagepipe.local.machines.qemu import qmp

PORTS = "fghijklmnop"
FIRST_SLOT = 0x10  # behind the slots that QEMU assigns by itself
FUNCTIONS = 8  # of a slot
MODES = (os.O_RDWR, os.O_RDONLY)
UNPLUG_SECONDS = 5.0  # for the guest's kernel to release the disk
CLOSE_SECONDS = 5.0


def port(device: str) -> str:
    """Return the port of a device name, which is its last letter; empty if no port is made for it."""
    drive = DRIVE.fullmatch(device)
    return drive[1] if drive is not None and drive[1] in PORTS and len(drive[1]) == 1 else ""


def bus(letter: str) -> str:
    """Return QEMU's id of a port."""
    return f"port-{letter}"


def node(serial: str) -> str:
    """Return QEMU's id of the file behind a disk."""
    return f"file-{serial}"


def device(serial: str) -> str:
    """Return QEMU's id of a disk's device."""
    return f"disk-{serial}"


def _address(letter: str) -> str:
    slot, function = divmod(PORTS.index(letter), FUNCTIONS)
    return f"{FIRST_SLOT + slot:02x}.{function}"


def arguments() -> Iterator[str]:
    """Yield the options that make the ports."""
    for number, letter in enumerate(PORTS, start=1):
        where = f"bus=pcie.0,addr={_address(letter)},multifunction=on"
        yield from ("-device", f"pcie-root-port,id={bus(letter)},chassis={number},slot={number},{where}")


def udev_rules() -> Iterator[str]:
    """Yield the rules that link EC2's names, /dev/sdf and /dev/xvdf, to the disk in a port."""
    for letter in PORTS:
        yield (
            f'SUBSYSTEM=="block", ENV{{DEVTYPE}}=="disk", DEVPATH=="*/0000:00:{_address(letter)}/*",'
            f' SYMLINK+="sd{letter} xvd{letter}"'
        )


def plug(folder: Path, path: Path, serial: str, letter: str) -> None:
    """Plug a disk into the machine of this folder; one that is there is success. Raises MachineError or OSError."""
    with qmp.connected(folder) as qemu:
        if device(serial) in _devices(qemu):
            return
        _close_files(qemu, serial)
        files = _pass_file(qemu, path, serial)
        options = {"driver": "raw", "discard": "unmap", "detect-zeroes": "unmap", "cache": {"no-flush": True}}
        file = {"driver": "file", "filename": files, "discard": "unmap", "cache": {"no-flush": True}, "locking": "off"}
        if node(serial) not in _nodes(qemu):
            qemu.ask("blockdev-add", {**options, "node-name": node(serial), "file": file})
        qemu.ask(
            "device_add",
            {
                "driver": "virtio-blk-pci",
                "id": device(serial),
                "drive": node(serial),
                "serial": serial,
                "bus": bus(letter),
            },
        )


def unplug(folder: Path, serial: str) -> None:
    """Unplug a disk; a missing one is success. Raises DiskBusy until the guest's kernel has released it."""
    with qmp.connected(folder) as qemu:
        if device(serial) in _devices(qemu):
            try:
                qemu.ask("device_del", {"id": device(serial)})
            except MachineError as problem:
                if "already in the process of unplug" not in str(problem):
                    raise DiskBusy(str(problem)) from problem
            if not any(device(serial) not in _devices(qemu) for _ in tries(UNPLUG_SECONDS, pause=0.05)):
                raise DiskBusy("the machine's kernel does not release the disk")
        for _ in tries(CLOSE_SECONDS, pause=0.05):
            with suppress(MachineError):  # the drive of a boot is deleted with its device
                qemu.ask("blockdev-del", {"node-name": node(serial)})
            if node(serial) not in _nodes(qemu):
                break
        else:
            raise DiskBusy("QEMU does not close the disk")
        _close_files(qemu, serial)


def resize(folder: Path, serial: str, size: int) -> None:
    """Give a disk this many bytes. Raises MachineError."""
    with qmp.connected(folder) as qemu:
        is_of_boot = any(each.get("device") == node(serial) for each in qemu.ask("query-block"))
        qemu.ask("block_resize", {"device" if is_of_boot else "node-name": node(serial), "size": size})


def _devices(qemu: qmp.Connection) -> set[str]:
    return {str(each["name"]) for each in qemu.ask("qom-list", {"path": "/machine/peripheral"})}


def _nodes(qemu: qmp.Connection) -> set[str]:
    """List the files that are open, by the names that they were opened under."""
    blocks = qemu.ask("query-block")
    named = {str(each.get("node-name")) for each in qemu.ask("query-named-block-nodes")}
    return named | {str(each.get("device")) for each in blocks if "inserted" in each}


def _pass_file(qemu: qmp.Connection, path: Path, serial: str) -> str:
    """Pass the open file to QEMU, whose user may not open it, and return its name there."""
    number: int | None = None
    for mode in MODES:
        fd = os.open(path, mode | os.O_CLOEXEC)
        try:
            where = {} if number is None else {"fdset-id": number}
            number = int(qemu.ask("add-fd", {**where, "opaque": serial}, handing=fd)["fdset-id"])
        finally:
            os.close(fd)
    return f"/dev/fdset/{number}"


def _close_files(qemu: qmp.Connection, serial: str) -> None:
    """Have QEMU close the files of a disk that it does not use."""
    if node(serial) in _nodes(qemu):
        return
    for each in qemu.ask("query-fdsets"):
        if any(fd.get("opaque") == serial for fd in each["fds"]):
            qemu.ask("remove-fd", {"fdset-id": each["fdset-id"]})
