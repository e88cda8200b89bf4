"""Bytes of S3's objects, which are in files and never whole in memory.

An upload is written to a file as it comes in, with its digests worked out on the way; moto sees an empty body, and its
object is given the file afterwards. A download is read from the file while it is sent.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from imagepipe.dataclass import dataclass
from imagepipe.files import sync
from imagepipe.local.aws.protocol.checksums import CHECKSUMS, Digest, encoded
from imagepipe.local.aws.protocol.errors import AwsError

CHUNK_BYTES = 1 << 18
MAX_OBJECT_BYTES = 5 << 30  # of one PUT, as S3 has it (S3 user guide, "Uploading objects")
MAX_BODY_BYTES = 4 << 20  # of any other request: a DeleteObjects of 1,000 keys of 1 KiB has some 2 MiB
MAX_LINE_BYTES = 8192
DISCARD_LIMIT = 16 << 20
"""Limit of an unwanted body that is read to its end: a client that is still sending would not read the answer."""


class Source(Protocol):
    """A request's body, as the server has it."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Received:
    """A body that is on disk."""

    path: Path
    size: int
    md5: bytes
    sha256: str
    checksum: str
    """In base64; empty if none was requested."""
    trailers: Mapping[str, str]
    """Headers that came after the body, by lower-case name."""

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write a new file, which is on stable storage at the end; it is deleted if an error is raised."""
    with path.open("xb") as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    sync(path.parent)


def receive(source: Source, length: int | None, folder: Path, *, is_chunked: bool, algorithm: str = "") -> Received:
    """Write a body of `length` bytes to a new file in the folder. Raises AwsError if it ends early or is too long.

    `length` is None for a body that ends where its source ends.
    `is_chunked` says that the body is in `aws-chunked` encoding (S3 API reference, "Signature calculations").
    `algorithm` names the checksum to compute on the way; empty for none.
    """
    if length is not None and length > MAX_OBJECT_BYTES:
        raise _too_large()
    path = folder / uuid.uuid4().hex
    trailers: dict[str, str] = {}
    whole = hashlib.sha256()
    blocks = _blocks(source, length, whole)
    content = _unchunked(_Lines(blocks), trailers) if is_chunked else blocks
    md5, checksum = hashlib.md5(usedforsecurity=False), CHECKSUMS[algorithm]() if algorithm else None
    size = 0
    with new_file(path) as file:
        for block in content:
            size += len(block)
            if size > MAX_OBJECT_BYTES:
                raise _too_large()
            md5.update(block)
            if checksum is not None:
                checksum.update(block)
            file.write(block)
    found = encoded(checksum.digest()) if checksum is not None else ""
    return Received(path, size, md5.digest(), whole.hexdigest(), found, trailers)


def _too_large() -> AwsError:
    return AwsError("EntityTooLarge", f"Your proposed upload exceeds the maximum allowed size, {MAX_OBJECT_BYTES}")


class HttpChunks:
    """A body in HTTP's own chunks, as one stream (RFC 9112, section 7.1); no chunk is ever whole in memory."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._left = 0
        self._is_ended = False

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes; none at the end. Raises AwsError for a stream that is not in chunks."""
        if not self._left and not self._is_ended:
            self._left = _chunk_size(self._raw.readline(MAX_LINE_BYTES))
            self._is_ended = self._left == 0
            while self._is_ended and self._raw.readline(MAX_LINE_BYTES).strip():
                pass  # HTTP's own trailers; S3's are within
        block = self._raw.read(min(size, self._left)) if self._left else b""
        if self._left and not block:
            raise AwsError("IncompleteBody", "The request body terminated unexpectedly")
        self._left -= len(block)
        if block and not self._left and self._raw.readline(MAX_LINE_BYTES).strip():
            raise _not_chunked()
        return block


def _blocks(source: Source, length: int | None, whole: Digest) -> Iterator[bytes]:
    left = length
    while left is None:
        block = source.read(CHUNK_BYTES)
        if not block:
            return
        whole.update(block)
        yield block
    while left:
        block = source.read(min(CHUNK_BYTES, left))
        if not block:
            raise AwsError("IncompleteBody", "You did not provide the number of bytes specified by Content-Length")
        left -= len(block)
        whole.update(block)
        yield block


class _Lines:
    """Blocks as a stream of lines and counted bytes."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._buffer = b""

    def line(self) -> bytes:
        while b"\n" not in self._buffer:
            block = next(self._blocks, b"")
            if not block:
                line, self._buffer = self._buffer, b""
                return line
            self._buffer += block
            if len(self._buffer) > MAX_LINE_BYTES + CHUNK_BYTES:
                raise _not_chunked()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def exactly(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            block = self._buffer or next(self._blocks, b"")
            if not block:
                raise _not_chunked()
            yield block[:left]
            self._buffer, left = block[left:], max(0, left - len(block))


def _unchunked(lines: _Lines, trailers: dict[str, str]) -> Iterator[bytes]:
    """Read the bytes within the chunks. Their signatures are not checked: the request's own is valid."""
    while size := _chunk_size(lines.line()):
        yield from lines.exactly(size)
        if lines.line():
            raise _not_chunked()
    while line := lines.line():
        name, _, value = line.decode("latin-1").partition(":")
        trailers[name.strip().lower()] = value.strip()


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", digits):
        raise _not_chunked()
    return int(digits, 16)


def _not_chunked() -> AwsError:
    return AwsError("InvalidRequest", "The body is not in the aws-chunked encoding that its headers state")


def read(source: Source, length: int) -> bytes:
    """Read a body that is not an object's. Raises AwsError, and reads nothing, if it is longer than MAX_BODY_BYTES."""
    if length > MAX_BODY_BYTES:
        text = f"The request has {length} bytes; the local cloud reads {MAX_BODY_BYTES}, but for an object's bytes"
        raise AwsError("RequestEntityTooLarge", text, status=413)
    return b"".join(_blocks(source, length, hashlib.sha256()))


def discard_rest(source: Any) -> bool:
    """Read the rest of an unwanted body. Return false if too much is left: the connection must be closed."""
    left = int(getattr(source, "remaining", 0))
    if left > DISCARD_LIMIT:
        return False
    while left > 0:
        block = source.read(min(CHUNK_BYTES, left))
        if not block:
            return False
        left -= len(block)
    return True


_seeing = threading.local()


@contextmanager
def without_bytes() -> Iterator[None]:
    """Make all objects read as empty on this thread within the block: moto would load their bytes into memory."""
    _seeing.none = True
    try:
        yield
    finally:
        _seeing.none = False


class ObjectFile:
    """A file with an object's bytes, as moto reads them; empty without a path. Takes no room in memory."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._position = 0

    def seek(self, position: int) -> None:
        self._position = position

    def read(self, size: int = -1) -> bytes:
        if self.path is None or getattr(_seeing, "none", False):
            return b""
        with self.path.open("rb") as file:
            file.seek(self._position)
            found = file.read(size)
        self._position += len(found)
        return found

    def close(self) -> None:
        """Do nothing: no file is open."""


@dataclass(slots=True)
class Content:
    """Part of a file, as an answer's body: open from the start, as the file may be deleted meanwhile."""

    descriptor: int
    start: int
    length: int

    @classmethod
    def of(cls, path: Path, start: int, length: int) -> Content:
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), start, length)

    def __iter__(self) -> Iterator[bytes]:
        position, end = self.start, self.start + self.length
        while position < end:
            block = os.pread(self.descriptor, min(CHUNK_BYTES, end - position), position)
            if not block:
                raise OSError("the file of an object is shorter than the object")
            position += len(block)
            yield block

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.close()  # for an answer that is never sent


def concatenate(paths: list[tuple[Path, int, int]], target: Path, algorithm: str = "") -> tuple[bytes, str]:
    """Join these parts of files, each as path, start and length, in the target.

    Return MD5 and checksum of the whole; the checksum is empty without an algorithm.
    """
    md5, checksum = hashlib.md5(usedforsecurity=False), CHECKSUMS[algorithm]() if algorithm else None
    with new_file(target) as file:
        for path, start, length in paths:
            content = Content.of(path, start, length)
            try:
                for block in content:
                    md5.update(block)
                    if checksum is not None:
                        checksum.update(block)
                    file.write(block)
            finally:
                content.close()
    return md5.digest(), encoded(checksum.digest()) if checksum is not None else ""


def checksum(algorithm: str, path: Path) -> str:
    """Compute the checksum of a file, in base64."""
    made = CHECKSUMS[algorithm]()
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            made.update(block)
    return encoded(made.digest())
