"""The process that holds a further disk of a container: `python -I -S holder.py PID STARTED DEVICE`.

It inherits the open disk. The shell that holds the root (see `supervisor`) cannot take or close a file descriptor while
the container runs. This process ends with that shell, or is killed when its disk is detached. It uses only the standard
library, without `site`, so that it starts in some 20 ms.
"""

# No pathlib (see pyproject.toml): its import would take a third of the whole start.
from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Detach from the caller, and wait until the process with this id and start time has ended."""
    pid, started, _ = arguments
    try:
        until = os.pidfd_open(int(pid))
        with open(f"/proc/{pid}/stat") as file:
            now = file.read().rpartition(")")[2].split()[19]  # proc(5): field 22
    except OSError:
        return 1
    if now != started:
        return 1
    if os.fork():
        return 0
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    select.select([until], [], [])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
