"""Send a file, a folder or bytes as one tar stream, generated on the fly: no second copy, one round trip."""

from __future__ import annotations

import errno
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from imagepipe.regular_files import open_regular

END = "end"
"""Name of the last member, an empty file."""
BLOCK_BYTES = 256 * 1024
"""Bytes of one write: 8 SSH packets; larger blocks were not faster when measured."""


class _Sink(io.RawIOBase):
    """The file object that tarfile writes to."""

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
    """Send a file or folder as the member `name`, with modes, links and times; root owns everything."""
    seen: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=_Sink(write), mode="w|", format=tarfile.PAX_FORMAT, bufsize=BLOCK_BYTES) as tar:
        _add(tar, source, name, seen)
        _add_end(tar)


def send_bytes(content: bytes, name: str, mode: int, write: Callable[[bytes], None], *, modified: int) -> None:
    """Send some bytes as the member `name`; `modified` is in seconds since 1970."""
    with tarfile.open(fileobj=_Sink(write), mode="w|", format=tarfile.PAX_FORMAT, bufsize=BLOCK_BYTES) as tar:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), mode, modified
        tar.addfile(_as_root(member), io.BytesIO(content))
        _add_end(tar)


def _add_end(tar: tarfile.TarFile) -> None:
    """Add the last member, because a stream that was cut between two members looks whole to tar."""
    tar.addfile(_as_root(tarfile.TarInfo(END)))


def _add(tar: tarfile.TarFile, path: Path, name: str, seen: dict[tuple[int, int], str]) -> None:
    status = path.lstat()
    if stat.S_ISREG(status.st_mode):
        _add_file(tar, path, name, seen)
        return
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise OSError(errno.EINVAL, "only regular files, folders and links can be uploaded", str(path))
    member = _as_root(tar.gettarinfo(path, arcname=name))
    tar.addfile(member)
    if member.isdir():
        for child in sorted(path.iterdir()):
            _add(tar, child, f"{name}/{child.name}", seen)


def _add_file(tar: tarfile.TarFile, path: Path, name: str, seen: dict[tuple[int, int], str]) -> None:
    with open_regular(path) as content:
        member = _as_root(tar.gettarinfo(arcname=name, fileobj=content))
        status = os.fstat(content.fileno())
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and identity in seen:
            member.type, member.linkname, member.size = tarfile.LNKTYPE, seen[identity], 0
            tar.addfile(member)
            return
        seen[identity] = name
        member.type, member.linkname, member.size = tarfile.REGTYPE, "", status.st_size
        tar.addfile(member, _Whole(content, path))


class _Whole(io.RawIOBase):
    """A file that must keep the size that it had when it was opened."""

    def __init__(self, content: BinaryIO, path: Path) -> None:
        super().__init__()
        self._content = content
        self._path = path

    def read(self, size: int = -1) -> bytes:
        block = self._content.read(size)
        if len(block) < size:
            raise OSError(errno.EIO, "the file became shorter during the upload", str(self._path))
        return block


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
