"""Read the digests of installed files from rpm's database: SQLite since rpm 4.16 (Amazon Linux 2023, RHEL 9, Fedora).

Each package is one header: an index of tags, then their values (rpm's manual, "RPM V4 Package format").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

DATABASES = ("usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/rpmdb.sqlite")
FILE_DIGESTS, DIRECTORY_INDEXES, BASE_NAMES, DIRECTORY_NAMES = 1035, 1116, 1117, 1118
ENTRY = struct.Struct(">IIII")
"""Entry of the index: tag, type, offset of the values, number of values."""


def digests(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the digest in hex and the path of every file that rpm installed; nothing without an SQLite database."""
    for name in DATABASES:
        database = root / name
        if database.is_file() and not database.is_symlink():
            with suppress(struct.error, LookupError, ValueError):  # the database is damaged
                for blob in _headers(database):
                    yield from of_header(blob)


def _headers(database: Path) -> Iterator[bytes]:
    try:
        import sqlite3
    except ImportError:  # minimal Python packages lack sqlite3
        return
    # The disk may be mounted read-only, where SQLite can neither lock nor write.
    uri = f"{database.absolute().as_uri()}?immutable=1"
    with suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as opened:
        for (blob,) in opened.execute("SELECT blob FROM Packages"):
            yield blob


def of_header(blob: bytes) -> Iterator[tuple[str, str]]:
    """Yield digest and path of the files of one package, without folders and links."""
    count, _ = struct.unpack_from(">II", blob)
    start = 8 + count * ENTRY.size
    found = {}
    for number in range(count):
        tag, _, offset, length = ENTRY.unpack_from(blob, 8 + number * ENTRY.size)
        found[tag] = (start + offset, length)
    if not {FILE_DIGESTS, DIRECTORY_INDEXES, BASE_NAMES, DIRECTORY_NAMES} <= set(found):
        return  # a package without files
    folders = _texts(blob, *found[DIRECTORY_NAMES])
    at, length = found[DIRECTORY_INDEXES]
    indexes = struct.unpack_from(f">{length}I", blob, at)
    names, sums = _texts(blob, *found[BASE_NAMES]), _texts(blob, *found[FILE_DIGESTS])
    for index, name, digest in zip(indexes, names, sums):  # noqa: B905 - Python 3.7 has no strict
        if digest:
            yield digest, folders[index] + name


def _texts(blob: bytes, at: int, count: int) -> list[str]:
    texts = []
    for _ in range(count):
        end = blob.index(b"\0", at)
        texts.append(blob[at:end].decode("utf-8", "surrogateescape"))
        at = end + 1
    return texts
