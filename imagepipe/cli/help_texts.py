"""The help of every command, as a file: `--help` loads none of the libraries that a command needs for its work."""

from __future__ import annotations

import os
from collections.abc import Sequence

FOLDER = os.path.join(os.path.dirname(__file__), "help")  # noqa: PTH118, PTH120 - pathlib takes five milliseconds
FULL_WIDTH = 80
"""Columns that click's help has on a terminal of this width or more; on a narrower one, click makes it anew."""


def help_text(program: str, words: Sequence[str]) -> str | None:
    """Return the help that a command line asks for; None if it asks for something else, or has a width of its own.

    `words` are those after the program's name. The files are made by `make docs`.
    """
    *command, last = words or [""]
    is_named = all(word.replace("-", "").isalnum() and not word.startswith("-") for word in command)
    if last not in ("--help", "-h") or not is_named or os.path.basename(program) != "imagepipe":  # noqa: PTH119
        return None
    import shutil  # with compressors: a fifth of the time of `imagepipe --version`

    if shutil.get_terminal_size().columns < FULL_WIDTH:
        return None
    try:
        with open(os.path.join(FOLDER, file_name(command)), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return file.read()
    except OSError:
        return None


def file_name(command: Sequence[str]) -> str:
    """Return the name of the file with a command's help; none for `imagepipe` itself."""
    return "_".join(command or ["imagepipe"]) + ".txt"
