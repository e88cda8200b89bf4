"""Packages: specs, their files and the values of a build, in shared state by content address.

PREFIX/files/SHA256    a file, or a package, which is a JSON document with the digests of its files

A worker on another machine writes the files of a package to a folder of its own, and loads the specs from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from imagepipe.clock import Clock
from imagepipe.dataclass import dataclass
from imagepipe.errors import ImagepipeError, UsageError
from imagepipe.regular_files import read_regular
from imagepipe.state.bucket import StateBucket

FORMAT = 1
LARGEST = 256 << 20
"""Largest file in bytes: a package is read into memory, file by file."""
FRESH = timedelta(days=7)
"""Age from which an object is written again, so that a lifecycle rule of the bucket does not delete it in use."""


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file, folder or symbolic link of a package."""

    path: str
    """Relative to the folder that contains everything."""
    mode: int
    digest: str | None = None
    """SHA-256 of a file's content."""
    link: str | None = None
    """Target of a symbolic link."""


@dataclass(frozen=True, slots=True)
class Package:
    """The content of a package."""

    root: str
    """The folder that contained everything where the package was made."""
    files: tuple[PackedFile, ...]
    values: Mapping[str, Any]
    """Everything else that the build needs."""

    def to_bytes(self) -> bytes:
        document = {"format": FORMAT, "root": self.root, "files": [asdict(each) for each in self.files]}
        return json.dumps({**document, "values": self.values}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Package:
        """Parse a package. Raises ImagepipeError if another version made it, or a file is outside of its folder."""
        document = json.loads(content)
        if document.get("format") != FORMAT:
            raise ImagepipeError(
                "the package of the build was made by another version of imagepipe",
                hint="start the build with the version that the workers have",
            )
        files = tuple(PackedFile(**row) for row in document["files"])
        for each in files:
            if each.path.startswith("/") or ".." in each.path.split("/"):
                raise ImagepipeError(f"the package of the build has a file outside of its folder: {each.path}")
        return cls(document["root"], files, document["values"])


def store_package(
    bucket: StateBucket,
    clock: Clock,
    files: Iterable[Path],
    values: Callable[[Path], Mapping[str, Any]],
    *,
    followed: Collection[Path] = (),
) -> str:
    """Store files, with the folders and links among them, and values; return the digest of the package.

    `values` gets the folder that contains all files. A link of `followed` leads to a file of the package on every
    machine, even if it names an absolute path; all others stay as they are.

    Raises UsageError for a file that is too large, or cannot be read; CloudError.
    """
    paths = sorted({Path(os.path.abspath(path)) for path in files})  # noqa: PTH100 - keeps links
    root = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path("/")
    stored = dict(bucket.listed("files/"))
    oldest = clock.now() - FRESH

    def store(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        key = _key(digest)
        if key not in stored or stored[key] < oldest:
            bucket.put(key, content)
            stored[key] = clock.now()
        return digest

    packed = []
    for path in paths:
        name = str(path.relative_to(root))
        try:
            about = path.lstat()
            if stat.S_ISLNK(about.st_mode):
                target = os.readlink(path)  # noqa: PTH115 - as it is written
                if path in followed and target.startswith("/"):
                    target = os.path.relpath(target, path.parent)
                packed.append(PackedFile(name, 0o777, link=target))
            elif stat.S_ISDIR(about.st_mode):
                packed.append(PackedFile(name, stat.S_IMODE(about.st_mode)))
            elif about.st_size > LARGEST:
                raise UsageError(
                    f"{path} has {about.st_size >> 20} MiB; a file of a build on Temporal may have {LARGEST >> 20}",
                    hint="put it into a bucket, and let a shell step fetch it",
                )
            else:
                packed.append(PackedFile(name, stat.S_IMODE(about.st_mode), store(read_regular(path))))
        except OSError as error:
            raise UsageError(f"reading {path} for the workers: {error.strerror}") from error
    return store(Package(str(root), tuple(packed), values(root)).to_bytes())


def read_package(bucket: StateBucket, digest: str) -> Package:
    """Read a package. Raises CloudError, ImagepipeError."""
    (content,) = bucket.read_many([_key(digest)])
    return Package.from_bytes(_checked(content, digest))


def unpack(bucket: StateBucket, package: Package, folder: Path) -> None:
    """Write the files of a package into a folder that is empty. Raises CloudError, ImagepipeError."""
    contents = [each for each in package.files if each.digest is not None]
    folders = [each for each in package.files if each.digest is None and each.link is None]
    for each in folders:
        (folder / each.path).mkdir(parents=True, exist_ok=True)
    for each, content in zip(contents, bucket.read_many([_key(str(each.digest)) for each in contents]), strict=True):
        path = folder / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_checked(content, str(each.digest)))
        path.chmod(each.mode)
    for each in package.files:
        if each.link is not None and not (folder / each.path).is_dir():  # with content that is reached through it
            (folder / each.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / each.path).symlink_to(each.link)
    for each in reversed(folders):  # last, because a folder may be read-only
        (folder / each.path).chmod(each.mode)


def _key(digest: str) -> str:
    return f"files/{digest}"


def _checked(content: bytes, digest: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != digest:
        raise ImagepipeError(f"files/{digest} in the state bucket was changed", hint="start the build again")
    return content
