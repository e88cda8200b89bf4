"""Scan the files of a tree by path and content.

The scan does not follow links and does not enter other file systems: it covers the tree, all of it and nothing else.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from imagepipe.hygiene.content import BLOCK_BYTES, KNOWN, Anchor, by_value, search
from imagepipe.hygiene.known import SETTLED_SECONDS, pack, stamp, unpack
from imagepipe.hygiene.listing import listed
from imagepipe.hygiene.packages import Packages
from imagepipe.hygiene.report import Finding, Report, ScanRequest
from imagepipe.hygiene.rules import BY_NAME, HEAD_BYTES, Match, is_telling, match, may_match

MOST_BYTES = 1 << 30
"""Largest part of a file that is read; a note mentions the rest."""
PUBLIC_IF_PACKAGED = frozenset(("private-key", "aws-key"))
"""Rules that do not apply to unchanged files of a distribution's packages."""


class Tree(NamedTuple):
    """A file system to walk."""

    root: str
    """Path of the tree on this machine."""
    point: str = "/"
    """Path of the tree on instances of the image."""

    def shown(self, path: str) -> str:
        """Return a path below `root` as it is on instances of the image."""
        inner = path[len(self.root.rstrip("/")) :]
        return self.point.rstrip("/") + inner


def scan(trees: Sequence[Tree], request: ScanRequest) -> Report:
    """Scan trees, the root's first, and return the findings sorted by path."""
    packages = Packages(trees[0].root)
    scanners = [_Scanner(tree, request, packages) for tree in trees]
    findings: set[Finding] = set()
    for each in scanners:
        findings.update(each.findings())
    return Report(
        tuple(sorted(findings, key=lambda each: (each.path, each.rule))),
        sum(each.files for each in scanners),
        sum(each.size for each in scanners),
        tuple(note for each in scanners for note in each.notes),
        sum(each.read for each in scanners),
        pack(stamp for each in scanners for stamp in each.clean),
    )


def scan_bytes(blocks: Iterable[bytes], path: str, request: ScanRequest) -> Report:
    """Scan bytes that are not a file system by content alone, as a file at this path."""
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for block in blocks:
            size += len(block)
            yield block

    found = sorted(search(counted(), _anchors(request)))
    return Report(tuple(Finding(rule, path, BY_NAME[rule].what) for rule in found), 1, size, read=1)


def _anchors(request: ScanRequest) -> list[Anchor]:
    keys = [request.builder_key] if request.builder_key else []
    every = [*KNOWN, *by_value("builder-key", keys), *by_value("build-secret", request.secrets)]
    return [each for each in every if each.rule in request.rules]


class _Scanner:
    """The scan of one tree, with its counters."""

    def __init__(self, tree: Tree, request: ScanRequest, packages: Packages) -> None:
        self.files = 0
        self.read = 0
        self.size = 0
        self.clean: list[bytes] = []
        self.notes: list[str] = []
        self._tree = tree
        self._rules = frozenset(request.rules)
        self._packages = packages
        self._seen: set[int] = set()
        self._anchors = _anchors(request)
        self._known = unpack(request.known)
        self._now = time.time()

    def findings(self) -> Iterator[Finding]:
        """Yield the findings of the tree, folder by folder."""
        for part in listed(self._tree.root, self._sort):
            self.files += part.others
            for path in part.files:
                yield from self._file(path, match(self._tree.shown(path)))
            for path, why in part.troubles:
                yield from self._found("unreadable", path, why)

    def _sort(self, folder: str, files: Sequence[os.DirEntry[str]]) -> tuple[list[str], int]:
        """Return the paths of files that a rule names or that changed since a clean scan; count the others."""
        chosen, known = [], 0
        is_ruled = may_match(self._tree.shown(folder))
        for entry in files:
            status = entry.stat(follow_symlinks=False)
            if (is_ruled or is_telling(entry.name)) and match(self._tree.shown(entry.path)) is not None:
                chosen.append(entry.path)
            elif status.st_size and stamp(status) in self._known:
                known += 1
            elif status.st_size:
                chosen.append(entry.path)
        return chosen, known

    def _file(self, path: str, matched: Match | None) -> Iterator[Finding]:
        shown = self._tree.shown(path)
        if matched is not None and matched.rule.name not in self._rules:
            return  # every boot creates it, so its content does not come from the image
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            yield from self._found("unreadable", path, error.strerror)
            return
        try:
            found = set()
            if matched is not None and matched.place.matches(os.pread(fd, HEAD_BYTES, 0)):
                found.add(matched.rule.name)
            found |= self._content(fd, shown)
            if matched is not None:
                found -= set(matched.rule.covers)
            for rule in found:
                yield from self._found(rule, path)
        except OSError as error:
            yield from self._found("unreadable", path, error.strerror)
        finally:
            os.close(fd)

    def _is_known(self, status: os.stat_result) -> bool:
        """Return whether a file is empty or unchanged since a clean scan."""
        if status.st_size == 0:
            return True
        if stamp(status) not in self._known:
            return False
        self.files += 1
        return True

    def _content(self, fd: int, shown: str) -> set[str]:
        """Return the rules that the content of an open file violates. Adds the stamp of a clean file to `clean`."""
        before = os.fstat(fd)
        if not self._is_new(before) or self._is_known(before):
            return set()
        self.files += 1
        self.read += 1
        found = search(self._blocks(fd, shown), self._anchors)
        if found & PUBLIC_IF_PACKAGED and self._packages.is_as_installed(shown):
            found -= PUBLIC_IF_PACKAGED
        is_settled = before.st_ctime < self._now - SETTLED_SECONDS
        if not found and is_settled and before.st_size <= MOST_BYTES and stamp(os.fstat(fd)) == stamp(before):
            self.clean.append(stamp(before))
        return found

    def _found(self, rule: str, path: str, why: str | None = None) -> Iterator[Finding]:
        if rule in self._rules:
            what = BY_NAME[rule].what
            yield Finding(rule, printable(self._tree.shown(path)), f"{what}: {why}" if why else what)

    def _is_new(self, seen: os.stat_result) -> bool:
        """Return whether this file has content and was not already read under another name."""
        if not stat.S_ISREG(seen.st_mode) or seen.st_size == 0 or seen.st_ino in self._seen:
            return False
        if seen.st_nlink > 1:
            self._seen.add(seen.st_ino)
        return True

    def _blocks(self, fd: int, shown: str) -> Iterator[bytes]:
        done = 0
        while True:
            block = os.read(fd, BLOCK_BYTES)
            if not block:
                return
            if done >= MOST_BYTES:
                self.notes.append(f"only the first GiB of {printable(shown)} was searched")
                return
            done += len(block)
            self.size += len(block)
            yield block


def printable(path: str) -> str:
    """Return a path in a form that a log can show; file names can be any bytes."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def disks_of_this_machine() -> list[Tree]:
    """Return the file systems on this machine's disks, each once, the root first. Snaps and the like are skipped."""
    trees = {os.lstat("/").st_dev: Tree("/")}
    for _, point in sorted(_mounted()):  # a mount of a whole file system comes before mounts of its folders
        with suppress(OSError):
            trees.setdefault(os.lstat(point).st_dev, Tree(point, point))
    return list(trees.values())


def _mounted() -> Iterator[tuple[str, str]]:
    """Yield the mounts of disks' file systems (proc(5), mountinfo)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:  # noqa: PTH123
        for line in table:
            place, _, source = line.partition(" - ")
            inside, point = place.split(" ")[3:5]
            kind, device = source.split(" ")[:2]
            point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code.group(1), 8)), point)
            is_of_machine = point.startswith(("/run/", "/proc/", "/sys/", "/dev/"))
            if device.startswith("/dev/") and kind not in ("squashfs", "iso9660", "erofs") and not is_of_machine:
                yield inside, point
