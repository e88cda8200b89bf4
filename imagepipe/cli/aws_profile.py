"""A profile in the AWS configuration file that leads to the local cloud, for tools that know profiles."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from imagepipe.errors import UsageError
from imagepipe.files import write_atomically

MARK = "# written by imagepipe local serve --profile"
NAME = re.compile(r"[A-Za-z0-9_.@+-]+")
HEADER = re.compile(r"^\s*\[\s*(.*?)\s*\]")


def write_profile(name: str, values: Mapping[str, str], environ: Mapping[str, str]) -> Path:
    """Write a profile, or replace our own of that name; return the file. Everything else in the file stays.

    Raises UsageError if the name is not one, if somebody else wrote a profile of this name, or if the file cannot be
    written.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"--profile {name!r}: a name has letters, digits and _ . @ + - only")
    file = Path(environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
    section = name if name == "default" else f"profile {name}"
    lines = [f"[{section}]", MARK, *(f"{key} = {value}" for key, value in values.items())]
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        content = _replaced(text, section, lines, file)
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(Path(os.path.realpath(file)), content)  # for its owner only, because it has a secret key now
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"writing profile {name} to {file}: {reason}") from error
    return file


def _replaced(text: str, section: str, lines: list[str], file: Path) -> str:
    """Return a configuration with a section replaced, or added at the end."""
    rows = text.splitlines()
    begin = next((at for at, row in enumerate(rows) if _name_of(row) == section), None)
    if begin is None:
        before = [*rows, ""] if rows and rows[-1].strip() else rows
        return "\n".join([*before, *lines]) + "\n"
    end = next((at for at in range(begin + 1, len(rows)) if _name_of(rows[at]) is not None), len(rows))
    if MARK not in (row.strip() for row in rows[begin:end]):
        raise UsageError(
            f"{file} has a [{section}] already, which imagepipe did not write", hint="choose another name for --profile"
        )
    # A blank line ends our lines; a comment below it may be about the next section.
    end = next((at for at in range(begin, end) if not rows[at].strip()), end)
    return "\n".join([*rows[:begin], *lines, *rows[end:]]) + "\n"


def _name_of(row: str) -> str | None:
    """Return the name of the section that a line begins; None for another line."""
    found = HEADER.match(row)
    return " ".join(found[1].split()) if found else None
