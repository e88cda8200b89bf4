"""Read local files only if they are regular files, because a read of anything else may never end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def exists(path: Path) -> bool:
    """Return whether a path exists: false, and no error, also for a name that is too long, or a folder of others."""
    return os.path.exists(path)  # noqa: PTH110 - Path.exists raises OSError for these


def is_file(path: Path) -> bool:
    """Return whether a path is a regular file: false, and no error, also for a name that is too long."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises OSError for these


def is_dir(path: Path) -> bool:
    """Return whether a path is a folder: false, and no error, also for a name that is too long."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises OSError for these


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Raises OSError with the path, also if it is not a regular file."""
    # Without O_NONBLOCK, opening a FIFO waits for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, f"is {_kind(mode)} and not a regular file", str(path))
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path) -> bytes:
    """Return the content of a file. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file. If every line ends in CR LF, as on Windows, the text has LF instead.

    Raises OSError as `open_regular` does, and UnicodeDecodeError.
    """
    return _without_carriage_returns(read_regular(path)).decode("utf-8")


def read_script(path: Path) -> bytes:
    """Return the bytes of a script. If every line ends in CR LF, as on Windows, they have LF instead.

    Raises OSError as `open_regular` does.
    """
    return _without_carriage_returns(read_regular(path))


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, at most `size`. Raises OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read(size)


def _without_carriage_returns(content: bytes) -> bytes:
    ends = content.count(b"\r\n")
    is_of_windows = ends and ends == content.count(b"\n") == content.count(b"\r")
    return content.replace(b"\r\n", b"\n") if is_of_windows else content


def special_files(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield files at or below a path that are not regular files, folders or links, with their kind."""
    mode = root.stat().st_mode
    if not stat.S_ISDIR(mode):
        if not stat.S_ISREG(mode):
            yield root, _kind(mode)
        return
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                yield path, _kind(mode)


def broken_link(path: Path, shown: str) -> str | None:
    """Return the problem with a path that does not exist because of a link on it; None if there is no such link."""
    for part in (*reversed(path.parents), path):
        if os.path.islink(part) and not exists(part):  # noqa: PTH114 - Path.is_symlink raises for a name that is too long
            name = shown if part == path else f"{shown}: {os.path.relpath(part)}"
            try:
                os.stat(part)  # noqa: PTH116 - for its error number
            except OSError as error:
                if error.errno == errno.ELOOP:
                    return f"{name} is a link that leads back to itself"
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                    return f"{name} is a link that cannot be followed: {error.strerror}"
            return f"{name} is a link to {os.readlink(part)}, which does not exist"  # noqa: PTH115 - as it is written
    return None


def missing(path: Path, shown: str) -> str:
    """Return the problem with a path at which no regular file was found."""
    if link := broken_link(path, shown):
        return link
    return f"{shown} is not a regular file" if exists(path) else f"file {shown} does not exist"


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a special file")
