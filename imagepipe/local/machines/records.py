"""A driver's record of a machine on disk, by which another process can take it over or clean up after it.

It is written before the first step of a start, and again when the machine is complete: a record without a supervisor
belongs to an incomplete start.
"""

from __future__ import annotations

from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.files import write_atomically
from imagepipe.local import codec
from imagepipe.local.host.processes import start_time
from imagepipe.local.machines.driver import Ingress, Machine

NAME = "machine.json"


@dataclass(frozen=True, slots=True)
class Process:
    """A process, by id and start time, because an id alone is reused."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, start_time(pid))


@dataclass(frozen=True, slots=True)
class Record:
    """A machine that was started and not terminated yet."""

    machine: Machine
    supervisor: Process | None = None
    """None until the supervisor waits for the command to boot."""
    ingress: tuple[Ingress, ...] = ()


def write(folder: Path, record: Record) -> None:
    """Keep the record, readable by the owner alone, as user data may hold keys."""
    write_atomically(folder / NAME, codec.dumps(record))


def read(folder: Path) -> Record | None:
    """Return the record of the folder's machine, or None if it does not exist."""
    try:
        return codec.loads(Record, (folder / NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def delete(folder: Path) -> None:
    """Delete the record; a missing one is success."""
    (folder / NAME).unlink(missing_ok=True)
