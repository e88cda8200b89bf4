"""List the files of a file system with their status, by several threads at once.

On a disk that is not cached yet, most of the time is spent waiting for one inode after another, and on a volume that
EC2 fetches from a snapshot each wait is long. The threads also choose the files that must be read. So little is left
for the caller, and the threads do not wait for Python's lock.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator
from typing import NamedTuple

THREADS = 4
FOLDERS_AT_ONCE = 16
"""Largest number of folders that a thread lists before it hands over the result."""
Sort = Callable[[str, "list[os.DirEntry[str]]"], "tuple[list[str], int]"]
"""A function that chooses the files of a folder to scan. It gets the folder and its regular files, and returns the
paths of the files to scan, and the number of files that count as scanned already. It is called in any thread."""


class Listed(NamedTuple):
    """The listing of some folders."""

    files: list[str]
    """Paths of files to scan."""
    others: int
    """Number of files that need not be read."""
    folders: list[str]
    """Folders of the same file system that are not listed yet."""
    troubles: list[tuple[str, str | None]]
    """Paths that could not be read, each with the reason. A path that is gone by now is not an error."""


def listed(root: str, sort: Sort) -> Generator[Listed, None, None]:
    """List everything below `root` that is in its file system, in any order, without following links.

    Exceptions of `sort` are passed on.
    """
    device = os.lstat(root).st_dev
    wanted: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[Listed | BaseException] = queue.SimpleQueue()

    def work() -> None:
        for folders in iter(wanted.get, None):
            try:
                answers.put(_list(folders, device, sort))
            except BaseException as error:  # noqa: BLE001 - the caller must get it, or it would wait forever
                answers.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for each in threads:
        each.start()
    waiting, expected = [root], 0
    try:
        while waiting or expected:
            while waiting and expected < 2 * THREADS:  # only a few, so that waiting results take little memory
                count = min(FOLDERS_AT_ONCE, 1 + len(waiting) // (2 * THREADS))
                wanted.put(waiting[-count:])
                del waiting[-count:]
                expected += 1
            answer = answers.get()
            expected -= 1
            if isinstance(answer, BaseException):
                raise answer
            waiting += answer.folders
            yield answer
    finally:
        for _ in threads:
            wanted.put(None)
        for each in threads:
            each.join()


def _list(folders: list[str], device: int, sort: Sort) -> Listed:
    """List these folders and their subfolders, up to FOLDERS_AT_ONCE in all."""
    found, others = Listed([], 0, list(folders), []), 0
    for _ in range(FOLDERS_AT_ONCE):
        if not found.folders:
            break
        folder = found.folders.pop()
        chosen, count = sort(folder, _entries(folder, device, found))
        found.files.extend(chosen)
        others += count
    return found._replace(others=others)


def _entries(folder: str, device: int, into: Listed) -> list[os.DirEntry[str]]:
    """Return the regular files of a folder; add its subfolders and errors to the lists."""
    files = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.stat(follow_symlinks=False).st_dev == device:
                            into.folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        entry.stat(follow_symlinks=False)
                        files.append(entry)
                except FileNotFoundError:
                    continue  # on a running machine, files appear and disappear
                except OSError as error:
                    into.troubles.append((entry.path, error.strerror))
    except FileNotFoundError:
        pass
    except OSError as error:
        into.troubles.append((folder, error.strerror))
    return files
