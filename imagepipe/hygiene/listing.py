"""The files of a file system and the status of each, asked for by several threads at once.

On a disk that nothing was read from yet, the time goes into waiting for one inode after another, and on a volume that
EC2 fetches from a snapshot every wait is long. The threads also sort out the files that need not be looked at: what is
left to the caller is little, and the threads do not wait for the caller's turn of Python's lock.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Generator
from typing import NamedTuple

THREADS = 4
FOLDERS_AT_ONCE = 16
"""The most that a thread lists before it hands over what it has."""
Sort = Callable[[str, "list[os.DirEntry[str]]"], "tuple[list[str], int]"]
"""Given a folder and its regular files, whose status is asked for already: paths of those to look at, and how many of
the others count as looked at. Called in any thread."""


class Listed(NamedTuple):
    """Some folders, as far as they could be listed."""

    files: list[str]
    """Paths of those to look at."""
    others: int
    """How many files need not be looked at, and count."""
    folders: list[str]
    """Folders in the same file system that are not listed yet."""
    troubles: list[tuple[str, str | None]]
    """Paths that could not be read, each with the reason; one that is gone by now is no trouble."""


def listed(root: str, sort: Sort) -> Generator[Listed, None, None]:
    """All of the file system that `root` is in, from there on down, in no certain order. Follows no links.

    Raises what `sort` raises.
    """
    device = os.lstat(root).st_dev
    wanted: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[Listed | BaseException] = queue.SimpleQueue()

    def work() -> None:
        for folders in iter(wanted.get, None):
            try:
                answers.put(_list(folders, device, sort))
            except BaseException as error:  # noqa: BLE001 - the caller must hear of it, or it waits for ever
                answers.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(THREADS)]
    for each in threads:
        each.start()
    waiting, expected = [root], 0
    try:
        while waiting or expected:
            while (
                waiting and expected < 2 * THREADS
            ):  # few, so that answers that wait for the caller take little memory
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
    """List these folders, and those below them up to FOLDERS_AT_ONCE in all."""
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
    """The regular files of a folder; its folders and troubles go to the rest of those."""
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
                    continue  # a machine that runs has files that come and go
                except OSError as error:
                    into.troubles.append((entry.path, error.strerror))
    except FileNotFoundError:
        pass
    except OSError as error:
        into.troubles.append((folder, error.strerror))
    return files
