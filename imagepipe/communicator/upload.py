"""Files and folders onto a machine as one tar stream: staged beside their place, on disk, then renamed."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from imagepipe.communicator.ssh import Connection, Result, Watch
from imagepipe.communicator.tarstream import send_bytes, send_path

Send = Callable[[Callable[[bytes], None]], None]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where something goes, and whose it is there."""

    dest: str
    """Absolute."""
    sudo: bool
    mode: str | None = None
    owner: str | None = None
    """None: root's with sudo, else the SSH user's."""


# $1 the place, $2 a name for the stage, $3 mode or nothing, $4 owner or nothing, $5 `file`, `into` (the contents of
# a folder) or `folder`. tar as root would take owners from the stream: they are root's, as wanted.
_RECEIVER = r"""
set -eu
dest=$1; stage=$2; mode=$3; owner=$4; kind=$5
case $kind in into) parent=$dest ;; *) parent=$(dirname "$dest") ;; esac
mkdir -p "$parent"
cd "$parent"
trap 'rm -rf "$stage"' EXIT
trap 'exit 143' TERM HUP
mkdir "$stage"
tar -xpf - -C "$stage"
if [ -n "$owner" ]; then chown -Rh "$owner" "$stage/it"; fi
if [ -n "$mode" ]; then chmod "$mode" "$stage/it"; fi
sync -f "$stage" 2>/dev/null || sync
case $kind in
file)
  if [ -d "$dest" ]; then echo "$dest is a folder; end dest with a slash to copy into it" >&2; exit 1; fi
  mv -f "$stage/it" "$dest"
  ;;
folder)
  if [ -e "$dest" ]; then
    mkdir -p "$dest"
    find "$stage/it" -mindepth 1 -maxdepth 1 -exec cp -afl --remove-destination -t "$dest" {} +
  else
    mv "$stage/it" "$dest"
  fi
  ;;
into)
  find "$stage/it" -mindepth 1 -maxdepth 1 -exec cp -afl --remove-destination -t "$dest" {} +
  ;;
esac
sync -f "$parent" 2>/dev/null || sync
"""


def upload_path(connection: Connection, source: str, base: Path, placement: Placement, watch: Watch) -> Result:
    """Upload a file or folder of ours. `src/` copies the contents of a folder; `dest/` means into that folder.

    A folder that is there already keeps its other files. Links, modes and exec bits are kept.
    """
    path = (base / source).resolve()
    dest = placement.dest
    if path.is_dir():
        kind = "into" if source.endswith("/") else "folder"
        if kind == "folder" and dest.endswith("/"):
            dest += path.name
    else:
        kind = "file"
        if dest.endswith("/"):
            dest += path.name
    return _receive(connection, replace(placement, dest=dest), kind, lambda write: send_path(path, "it", write), watch)


def upload_bytes(connection: Connection, content: bytes, placement: Placement, watch: Watch) -> Result:
    """Upload a file whose content is here; mode 0644 where the placement has none."""

    def send(write: Callable[[bytes], None]) -> None:
        send_bytes(content, "it", 0o644, write)

    return _receive(connection, placement, "file", send, watch)


def _receive(connection: Connection, placement: Placement, kind: str, send: Send, watch: Watch) -> Result:
    stage = f".imagepipe-{secrets.token_hex(6)}"
    dest = str(PurePosixPath(placement.dest))
    words = [dest, stage, placement.mode or "", placement.owner or "", kind]
    command = f"sh -c {shlex.quote(_RECEIVER)} imagepipe {shlex.join(words)}"
    if placement.sudo:
        command = f"sudo -n -H -- {command}"
    return connection.run(command, watch, send=send)
