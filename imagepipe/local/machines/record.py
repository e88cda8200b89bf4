"""What a driver keeps about a machine on disk, so that another process can take it over or clean up after it.

Written before the first step of a start, and once more when the machine is whole: what is found without a
supervisor is half made.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from imagepipe.files import write_atomically
from imagepipe.local.host.processes import start_time
from imagepipe.local.machines.driver import Disk, Ingress, Machine, Metadata, Seed

NAME = "machine.json"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, named for good."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, start_time(pid))


@dataclass(frozen=True, slots=True)
class Record:
    """A machine that was started and not terminated yet."""

    machine: Machine
    devices: tuple[str, ...] = ()
    """Its loop devices, in the order of its disks."""
    supervisor: Process | None = None
    """None until it waits for its word to boot."""
    ingress: tuple[Ingress, ...] = ()

    def with_ingress(self, ingress: Sequence[Ingress]) -> Record:
        return replace(self, ingress=tuple(ingress))


def write(folder: Path, record: Record) -> None:
    """Keep it, whole or not at all; readable by the owner alone, as user data may hold keys."""
    values = asdict(record)
    values["machine"]["disks"] = [{"device": d.device, "path": str(d.path)} for d in record.machine.disks]
    values["machine"]["seed"]["user_data"] = base64.b64encode(record.machine.seed.user_data).decode()
    write_atomically(folder / NAME, json.dumps(values))


def read(folder: Path) -> Record | None:
    """What is kept there; None if there is nothing."""
    try:
        values: dict[str, Any] = json.loads((folder / NAME).read_text())
    except FileNotFoundError:
        return None
    machine, seed = values["machine"], values["machine"]["seed"]
    user_data = base64.b64decode(seed["user_data"])
    return Record(
        machine=Machine(
            id=machine["id"],
            address=machine["address"],
            disks=tuple(Disk(d["device"], Path(d["path"])) for d in machine["disks"]),
            seed=Seed(**seed | {"user_data": user_data, "public_keys": tuple(seed["public_keys"])}),
            metadata=Metadata(**machine.get("metadata", {})),
        ),
        devices=tuple(values["devices"]),
        supervisor=Process(**values["supervisor"]) if values["supervisor"] else None,
        ingress=tuple(Ingress(**rule) for rule in values["ingress"]),
    )


def delete(folder: Path) -> None:
    """Gone already is success."""
    (folder / NAME).unlink(missing_ok=True)
