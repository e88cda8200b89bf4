"""Run the programs of this computer that disks are made with."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path


def try_tool(
    command: Sequence[str], *, stdin: str = "", folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, and return its exit status and what it printed."""
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, errors="replace", check=False, cwd=folder
    )


def run_tool(
    command: Sequence[str],
    *,
    error: type[Exception],
    accept: Sequence[int] = (0,),
    stdin: str = "",
    folder: Path | None = None,
) -> str:
    """Run a program in a folder and return what it printed.

    Raises `error` if the program is not installed, or exits with another status than those that are accepted.
    """
    try:
        done = try_tool(command, stdin=stdin, folder=folder)
    except FileNotFoundError as missing:
        raise error(f"{command[0]} is not installed; imagepipe local doctor names its package") from missing
    if done.returncode not in accept:
        output = (done.stderr or done.stdout).strip()[-500:]
        raise error(f"{' '.join(command)}: exit {done.returncode}: {output}")
    return done.stdout
