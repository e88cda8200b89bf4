"""Recognize unchanged files of a distribution's packages: anybody can download them, so a key in one is not secret.

Libraries contain keys for their own tests (gnutls does), and manuals show some. dpkg and rpm know the digest of every
file that they installed, and only such files are accepted. If neither exists, or if rpm's database has a format that
only rpm can read, the system's shared libraries and documentation are accepted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imagepipe.hygiene import rpm

ELF = b"\x7fELF"
DOCUMENTATION = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/info/")
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
"""Algorithms by number of hex digits: dpkg uses MD5, rpm mostly SHA-256."""
_LIBRARY = re.compile(r"/(usr/)?lib(64|exec)?/.*\.so(\.[0-9.]+)?")
_CACHED = re.compile(r"(.*)/__pycache__/([^/]+?)\.cpython-[0-9]+(\.opt-[12])?\.pyc")


class Packages:
    """The packages of one tree."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._digests: dict[str, set[str]] | None = None

    def is_as_installed(self, path: str) -> bool:
        """Return whether the file at this absolute path of the tree is exactly as a package installed it."""
        cached = _CACHED.fullmatch(path)
        # A compiled Python file counts as its source.
        source = "{}/{}.py".format(*cached.groups()[:2]) if cached else path
        known = self._known()
        if not known:
            return self._is_of_system(path)
        return any(self._digest(source, digest) == digest for digest in known.get(_plain(source), ()))

    def _known(self) -> dict[str, set[str]]:
        """Return the digests of dpkg or rpm by path; read once, and only if there is a finding."""
        if self._digests is None:
            self._digests = {}
            for digest, path in self._lines():
                self._digests.setdefault(_plain(path), set()).add(digest)
        return self._digests

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield from rpm.digests(self._root)
        folder = self._root / "var/lib/dpkg"
        for file in folder.glob("info/*.md5sums"):
            for line in file.read_text(errors="surrogateescape").splitlines():
                digest, _, path = line.partition("  ")
                yield digest, "/" + path
        with suppress(OSError):
            status = (folder / "status").read_text(errors="surrogateescape")
            # dpkg's md5sums files do not contain conffiles.
            for path, digest in re.findall(r"^ (/\S+) ([0-9a-f]{32})\b", status, re.MULTILINE):
                yield digest, path

    def _digest(self, path: str, like: str) -> str:
        """Return the digest of a file by the algorithm of a known digest."""
        digest = hashlib.new(ALGORITHMS.get(len(like), "sha256"))
        with suppress(OSError), (self._root / path[1:]).open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
            return digest.hexdigest()
        return ""

    def _is_of_system(self, path: str) -> bool:
        if path.startswith(DOCUMENTATION):
            return True
        with suppress(OSError), (self._root / path[1:]).open("rb") as file:
            return _LIBRARY.fullmatch(path) is not None and file.read(4) == ELF
        return False


def _plain(path: str) -> str:
    """Remove /usr from a path, because dpkg may list files without it on usr-merged systems."""
    return path[4:] if path.startswith("/usr/") else path
