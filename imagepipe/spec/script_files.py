"""Files that cannot run as scripts: executables, archives, and texts in encodings that no interpreter reads."""

from __future__ import annotations

from pathlib import Path

from imagepipe.regular_files import read_head
from imagepipe.spec.step_models import ShellScript

_HEAD_BYTES = 4096
_UTF_8_MARK = b"\xef\xbb\xbf"
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BINARIES = {
    b"\x7fELF": "a compiled program",
    b"MZ": "a program for Windows",
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}
"""Kinds of files by their first bytes (magic(5))."""


def script_problem(shell: ShellScript, path: Path) -> tuple[str, str | None] | None:
    """Return the reason why a script's file cannot run, with a hint; None if it can.

    With an `interpreter`, only an unreadable file is a problem: Python, for one, accepts a byte order mark.
    """
    try:
        head = read_head(path, _HEAD_BYTES)
    except OSError as error:
        return f"{shell.script} cannot be read: {error.strerror}", None
    if shell.interpreter is not None:
        return None
    if head.startswith(_UTF_8_MARK):
        message = f"{shell.script} starts with a byte order mark, which hides its #! line and breaks its first command"
        return message, "save it as UTF-8 without a byte order mark"
    if head.startswith(_UTF_16_MARKS):
        return f"{shell.script} is encoded in UTF-16, which no shell reads", "save it as UTF-8"
    kind = next((kind for start, kind in _BINARIES.items() if head.startswith(start)), None)
    if kind is None and not head.startswith(b"#!") and b"\0" in head.partition(b"\n")[0]:
        kind = "a binary file"  # bash refuses a file with a NUL in its first line
    if kind is None:
        return None
    return f"{shell.script} is {kind}, not a script", "upload it with a file: step, and run it in a shell: step"
