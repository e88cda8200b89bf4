"""Freeze the file systems of a running machine while its disks are read.

A write to a frozen file system hangs and cannot be killed, so the thaw must come even if this process is killed. A
shell does both, and thaws as soon as its standard input ends.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from imagepipe.local.host.errors import MachineError

FREEZE_SECONDS = 30
FITHAW = 0xC0045878
"""_IOWR('X', 120, int), linux/fs.h."""
HOLD = """
thaw() { while [ $# -gt 0 ]; do fsfreeze -u "$1"; shift; done; }
trap '' INT TERM HUP
left=$#
while [ $left -gt 0 ]; do
  where=$1; shift; left=$((left - 1))
  if output=$(LC_ALL=C fsfreeze -f "$where" 2>&1); then
    set -- "$@" "$where"
  else
    # Busy: the machine has frozen it by itself, and thaws it by itself.
    case $output in *busy*) continue ;; esac
    echo "$output" >&2
    while [ $left -gt 0 ]; do shift; left=$((left - 1)); done
    thaw "$@" 2>/dev/null
    exit 1
  fi
done
echo frozen
read -r word
thaw "$@"
"""


def mounted(pid: int, devices: Sequence[str]) -> list[Path]:
    """Find one mount point, as the host sees it, for each of these devices that a process has mounted."""
    numbers = {f"{os.major(n)}:{os.minor(n)}" for n in (Path(device).stat().st_rdev for device in devices)}
    found: dict[str, Path] = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        _, _, number, _, where, *_ = line.split()
        if number in numbers:
            point = where.encode().decode("unicode_escape")  # a space is \\040 there
            found.setdefault(number, Path(f"/proc/{pid}/root{point}"))
    return list(found.values())


@contextmanager
def frozen(places: Sequence[Path]) -> Iterator[None]:
    """Sync and freeze for the block, and thaw afterwards. Raises MachineError."""
    shell = subprocess.Popen(
        ["sh", "-c", HOLD, "imagepipe-freeze", *map(str, places)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        assert shell.stderr is not None
        answered, _, _ = select.select([shell.stdout], [], [], FREEZE_SECONDS)
        is_frozen = bool(answered) and shell.stdout.readline() == b"frozen\n"
        try:
            if not is_frozen:
                shell.stdin.close()
                output = shell.stderr.read().decode(errors="replace").strip()
                raise MachineError(f"freezing {', '.join(map(str, places))}: {output or 'no answer'}")
            yield
        finally:
            shell.stdin.close()
    if shell.returncode != 0:
        raise MachineError(f"thawing {', '.join(map(str, places))}: fsfreeze exited with {shell.returncode}")


def thaw(place: Path) -> None:
    """Thaw the file system of a folder, whoever froze it; do nothing if it is not frozen or does not exist."""
    with suppress(OSError):
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(folder, FITHAW, 0)
        finally:
            os.close(folder)
