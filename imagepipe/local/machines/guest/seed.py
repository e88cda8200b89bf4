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


def seed_documents(seed: Seed, *, links: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """Make the documents by name. User data is the caller's own; the cloud adds meta-data and vendor-data.

    `links` maps further names of disks, such as `/dev/sdf`, to udev's names. The links are made at every boot.
    """
    vendor: dict[str, object] = dict(VENDOR_DATA)
    if links:
        vendor["bootcmd"] = [["ln", "-sfn", target, name] for name, target in links.items()]
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
