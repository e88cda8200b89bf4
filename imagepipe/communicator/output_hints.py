"""Hints for failures that the output of a command shows: sudo that does not work, file systems without room."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SUDO = (
    # Texts of sudo, and of sudo-rs, which is Ubuntu's default since 25.10.
    (
        r"you must have a tty to run sudo",
        "sudo on this image wants a terminal (requiretty), and commands over SSH have none: let launch.user_data write"
        " `Defaults !requiretty` into a file of mode 0440 in /etc/sudoers.d (cloud-config, write_files)",
    ),
    (
        r"sudo: .*(password is required|interactive authentication is required|password was provided)",
        "the SSH user cannot use sudo without a password on this image: log in as the image's own user, or let"
        " launch.user_data give this one `NOPASSWD:ALL` (cloud-config, users, sudo)",
    ),
    (
        r"not in the sudoers file|[Uu]ser \S+ is not allowed to (execute|run)|I'm afraid I can't do that",
        "the sudoers file of this image does not let the SSH user run everything as root: log in as the image's own"
        " user, or let launch.user_data give this one `ALL=(ALL) NOPASSWD:ALL` (cloud-config, users, sudo)",
    ),
    (
        r"(?m)(?<!\w)sudo: ([Cc]ommand )?not found\.?$|ommand not found: sudo|Unknown command: sudo"
        r"|sudo['’]?: No such file",
        "sudo is not installed on this image: log in as root, or let launch.user_data install it (cloud-config,"
        " packages)",
    ),
    (
        r"sudo: .*(must be owned by uid|effective uid is not 0|no new privileges)",
        "sudo cannot become root on this image: its program needs owner root, the setuid bit, and no nosuid mount",
    ),
    (
        r"sudo: .*(/etc/sudo\S* is (owned by|world writable|group writable|mode)|no valid sudoers)"
        r"|/sudoers\S*:.*(syntax|parse) error",
        "the sudoers file of this image is broken: check /etc/sudoers and /etc/sudoers.d with `visudo -c`, owner root"
        " and mode 0440",
    ),
    (
        r"sudo: .*(account validation failure|ccount or password is expired|password expired)",
        "the SSH user's account or password has expired on this image: log in as another user, or let launch.user_data"
        " renew it",
    ),
)
_ROOM = (
    (
        r"No space left on device",
        "the file system is full, of data or of inodes: enlarge the volume (size_gib in launch.block_devices), or"
        " delete files in an earlier step",
    ),
    (
        r"[Dd]isk quota exceeded",
        "the user's disk quota is used up on the machine: raise it in an earlier step, or choose another file system",
    ),
    (
        r"Read-only file system",
        "this file system is mounted read-only: choose another path, or remount it in an earlier step; after an I/O"
        " error the kernel makes a file system read-only, and dmesg says so",
    ),
    (
        r"File too large",
        "the file is larger than the file system or the user's limit (ulimit -f) on the machine allows",
    ),
)


def hint_of_output(lines: Iterable[str]) -> str | None:
    """Return a hint if a line shows that sudo does not work, or that a file system takes no more data."""
    text = "\n".join(lines)
    return sudo_hint(text) or next((hint for pattern, hint in _ROOM if re.search(pattern, text)), None)


def sudo_hint(text: str) -> str | None:
    """Return a hint if a text shows why sudo does not work."""
    return next((hint for pattern, hint in _SUDO if re.search(pattern, text)), None)
