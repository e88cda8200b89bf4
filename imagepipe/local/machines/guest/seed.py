"""cloud-init's input at a machine's boot: the documents of its NoCloud datasource, and nothing on the disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from imagepipe.files import write_atomically
from imagepipe.local.machines.driver import Seed

VENDOR_DATA = {
    # Else "sudo: unable to resolve host".
    "manage_etc_hosts": "localhost",
    # Else cloud-init ends with an error: the base image has no locales.
    "locale": "C.UTF-8",
}


UDEV_FILE = "/run/udev/rules.d/90-imagepipe.rules"


def seed_documents(seed: Seed, *, links: Mapping[str, str] | None = None, udev_rules: str = "") -> dict[str, bytes]:
    """Make the documents by name. User data is the caller's own; the cloud adds meta-data and vendor-data.

    `links` maps further names of disks, such as `/dev/sdf`, to udev's names. The links are made at every boot, and the
    rules for udev are installed in memory.
    """
    vendor: dict[str, object] = dict(VENDOR_DATA)
    commands = [["ln", "-sfn", target, name] for name, target in (links or {}).items()]
    if udev_rules:
        install = f'mkdir -p {UDEV_FILE.rpartition("/")[0]} && printf %s "$1" >{UDEV_FILE} && udevadm control --reload'
        commands.append(["sh", "-c", install, "imagepipe", udev_rules])
    if commands:
        vendor["bootcmd"] = commands
    meta = {
        "instance-id": seed.instance_id,
        "local-hostname": seed.hostname,
        "public-keys": list(seed.public_keys),
        "region": seed.region,
    }
    return {
        "meta-data": json.dumps(meta).encode(),  # JSON is YAML
        "user-data": seed.user_data,
        "vendor-data": b"#cloud-config\n" + json.dumps(vendor).encode() + b"\n",
    }


def write_seed(folder: Path, seed: Seed) -> None:
    """Write the documents as files that only root may read: user data holds keys."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, body in seed_documents(seed).items():
        write_atomically(folder / name, body)
