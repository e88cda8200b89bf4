"""Let a store's serving process and its clients find one another: three locks and a file.

The process holds `lock` as long as it lives; clients hold `clients` shared; a client that starts a process holds
`starting`. The kernel releases a lock when its holder ends, however it ends, so no stale lock is left.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from imagepipe.dataclass import dataclass
from imagepipe.files import write_atomically
from imagepipe.local.host import rootless
from imagepipe.local.host.processes import is_alive, start_time
from imagepipe.local.machines import endpoint
from imagepipe.local.store import Store

ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Serving:
    """A process that serves a store."""

    pid: int
    started: str
    port: int
    first_real_port: int = 0
    """The first port of instances that is not open at an offset (`HostPorts`)."""

    @classmethod
    def this_process(cls, port: int) -> Serving:
        first_real = rootless.host_ports().first_real
        return cls(os.getpid(), start_time(os.getpid()), port, first_real)

    @property
    def endpoint_url(self) -> str:
        return f"http://{ADDRESS}:{self.port}"

    def is_alive(self) -> bool:
        return is_alive(self.pid, self.started)


def announce(store: Store, serving: Serving) -> None:
    """Publish the address for clients, in one atomic write."""
    write_atomically(store.serving, json.dumps(asdict(serving)))
    (store.root / endpoint.PORT_FILE).write_text(f"{serving.port}\n")


def withdraw(store: Store) -> None:
    store.serving.unlink(missing_ok=True)


def current(store: Store) -> Serving | None:
    """Return the serving process, or None if no process listens yet."""
    try:
        serving = Serving(**json.loads(store.serving.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return serving if serving.is_alive() else None


def is_locked(path: Path) -> bool:
    """Tell if a process holds this lock exclusively."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def held(path: Path, how: int) -> Iterator[None]:
    """Hold this lock (fcntl.LOCK_SH or LOCK_EX, with LOCK_NB to raise BlockingIOError) while inside."""
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield
