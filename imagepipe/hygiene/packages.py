"""What a distribution's package brought, unchanged: anybody can download it, so no key in it is a secret.

Libraries carry keys for their own tests (gnutls does), and manuals show some. dpkg and rpm know the digest of every
file that they installed; there a file is let pass by that alone. Where neither is, or rpm's database is of a kind that
needs rpm, the system's shared libraries and its documentation are let pass.
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
"""By the digits of a digest: dpkg has MD5, rpm mostly SHA-256."""
_LIBRARY = re.compile(r"/(usr/)?lib(64|exec)?/.*\.so(\.[0-9.]+)?")
_CACHED = re.compile(r"(.*)/__pycache__/([^/]+?)\.cpython-[0-9]+(\.opt-[12])?\.pyc")


class Packages:
    """The packages of one tree."""

    def __init__(self, root: str) -> None:
        self._root = Path(root)
        self._digests: dict[str, set[str]] | None = None

    def brought(self, path: str) -> bool:
        """Whether the file at this absolute path of the tree is as a package brought it."""
        cached = _CACHED.fullmatch(path)
        # What Python compiled is as its source is.
        source = "{}/{}.py".format(*cached.groups()[:2]) if cached else path
        known = self._known()
        if not known:
            return self._is_of_system(path)
        return any(self._digest(source, digest) == digest for digest in known.get(_plain(source), ()))

    def _known(self) -> dict[str, set[str]]:
        """Digests by path, as dpkg or rpm has them; read once, and only where there is a finding."""
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
            # Conffiles are in no md5sums.
            for path, digest in re.findall(r"^ (/\S+) ([0-9a-f]{32})\b", status, re.MULTILINE):
                yield digest, path

    def _digest(self, path: str, like: str) -> str:
        """Of a file, by the algorithm that such a digest is of."""
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
    """Without /usr, which dpkg may have left out where the two are merged."""
    return path[4:] if path.startswith("/usr/") else path
