"""Identify processes by id and start time, because an id alone is reused; return this process's free memory."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path


def start_time(pid: int) -> str:
    """Return a process's start time in the kernel's ticks; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, started = fields[0], fields[19]  # proc(5): fields 3 and 22
    return "" if state in "ZX" else started


def is_alive(pid: int, started: str) -> bool:
    """Tell if the process that began then still runs."""
    return started != "" and start_time(pid) == started


def kill_group(pid: int, started: str) -> None:
    """Kill the process group that this process leads, if it is still the one that began then."""
    if is_alive(pid, started):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # mallopt(3), malloc.h
LARGE_BYTES = 256 << 10


def return_memory() -> None:
    """Have malloc return large blocks to the system as they are freed. It does nothing without glibc.

    By itself glibc raises its threshold to 32 MiB at the first such block that is freed, and keeps the next ones in an
    arena of each thread's own.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    mallopt(M_ARENA_MAX, 2)
