"""Upload files and folders as one tar stream: staged beside the destination, written to disk, then renamed.

Existing folders keep their mode and owner, links to folders and mounts are followed, and a failed upload leaves
everything as it was (`receive.sh`).
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path, PurePosixPath

from imagepipe.communicator.ssh import Connection, Result, Watch
from imagepipe.communicator.tarstream import send_bytes, send_path
from imagepipe.dataclass import dataclass

Send = Callable[[Callable[[bytes], None]], None]


@dataclass(frozen=True, slots=True)
class Placement:
    """The destination of an upload, with mode and owner."""

    dest: str
    """Absolute path."""
    sudo: bool
    mode: str | None = None
    owner: str | None = None
    """Owner; None means root with sudo, else the SSH user."""


RECEIVER = files("imagepipe.communicator").joinpath("receive.sh").read_text(encoding="utf-8")


def upload_path(connection: Connection, source: str, base: Path, placement: Placement, watch: Watch) -> Result:
    """Upload a local file or folder. `src/` copies the contents of a folder; `dest/` means inside that folder.

    Existing folders keep their other files, mode and owner, at every level. Links, modes and exec bits are kept. If the
    source itself is a link, its target is uploaded, under the name of the link.
    """
    path = (base / source).resolve()
    name = Path(source).name
    if name in ("", ".."):
        name = path.name
    dest = placement.dest
    if path.is_dir():
        kind = "into" if source.endswith("/") else "folder"
        if kind == "folder" and dest.endswith("/"):
            dest += name
    else:
        kind = "file"
        if dest.endswith("/"):
            dest += name
    return _receive(connection, replace(placement, dest=dest), kind, lambda write: send_path(path, "it", write), watch)


def upload_bytes(connection: Connection, content: bytes, placement: Placement, watch: Watch) -> Result:
    """Upload a file with this content, modified now; mode 0644 if the placement has none."""
    modified = int(watch.deadline.clock.now().timestamp())

    def send(write: Callable[[bytes], None]) -> None:
        send_bytes(content, "it", 0o644, write, modified=modified)

    return _receive(connection, placement, "file", send, watch)


def _receive(connection: Connection, placement: Placement, kind: str, send: Send, watch: Watch) -> Result:
    stage = f".imagepipe-{secrets.token_hex(6)}"
    dest = str(PurePosixPath(placement.dest))
    words = [dest, stage, placement.mode or "", placement.owner or "", kind]
    command = f"sh -c {shlex.quote(RECEIVER)} imagepipe {shlex.join(words)}"
    if placement.sudo and connection.endpoint.user != "root":
        command = f"sudo -n -H -- {command}"
    return connection.run(command, watch, send=send)
