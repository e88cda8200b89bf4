"""A file, a folder or some bytes as one tar stream, made while it is sent: no second copy, no round trip a file."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

END = "end"
"""Name of the last member, an empty file."""
BLOCK_BYTES = 256 * 1024
"""What one write carries: 8 SSH packets; larger blocks measured no faster."""


class _Sink(io.RawIOBase):
    """The file that tarfile writes to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        block = bytes(data)  # type: ignore[call-overload]
        self._write(block)
        return len(block)


def send_path(source: Path, name: str, write: Callable[[bytes], None]) -> None:
    """Send a file or folder as the member `name`; modes, links and times are kept, owners are root's."""
    seen: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=_Sink(write), mode="w|", format=tarfile.PAX_FORMAT, bufsize=BLOCK_BYTES) as tar:
        _add(tar, source, name, seen)
        _add_end(tar)


def send_bytes(content: bytes, name: str, mode: int, write: Callable[[bytes], None]) -> None:
    """Send some bytes as the member `name`."""
    with tarfile.open(fileobj=_Sink(write), mode="w|", format=tarfile.PAX_FORMAT, bufsize=BLOCK_BYTES) as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), mode
        tar.addfile(_as_root(member), io.BytesIO(content))
        _add_end(tar)


def _add_end(tar: tarfile.TarFile) -> None:
    """Add the last member: a stream that was cut between two members looks whole to tar."""
    tar.addfile(_as_root(tarfile.TarInfo(END)))


def _add(tar: tarfile.TarFile, path: Path, name: str, seen: dict[tuple[int, int], str]) -> None:
    member: tarfile.TarInfo | None = tar.gettarinfo(path, arcname=name)
    if member is None:  # a socket, whatever typeshed says
        return
    _as_root(member)
    status = path.lstat()
    identity = (status.st_dev, status.st_ino)
    if member.isreg():
        if status.st_nlink > 1 and identity in seen:
            member.type, member.linkname, member.size = tarfile.LNKTYPE, seen[identity], 0
            tar.addfile(member)
            return
        seen[identity] = name
        member.type = tarfile.REGTYPE
        member.size = status.st_size
        with path.open("rb") as content:
            tar.addfile(member, content)
        return
    tar.addfile(member)
    if member.isdir():
        for child in sorted(path.iterdir()):
            _add(tar, child, f"{name}/{child.name}", seen)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
