"""Signals that a process was started with."""

from __future__ import annotations

from collections.abc import Iterable

OF_THE_C_LIBRARY = {32, 33}
"""glibc keeps them for its threads: no program can set them back, if whoever started it had them ignored."""


def not_default(status: Iterable[str]) -> set[int]:
    """Signals that are ignored or blocked, by lines of /proc/PID/status; a missing line raises ValueError."""
    masks = {
        name: int(mask, 16)
        for name, _, mask in (line.partition(":\t") for line in status)
        if name in ("SigIgn", "SigBlk")
    }
    if len(masks) != 2:
        raise ValueError("lines SigIgn and SigBlk are needed")
    ignored = masks["SigIgn"] | masks["SigBlk"]
    return {number for number in range(1, 65) if ignored >> (number - 1) & 1} - OF_THE_C_LIBRARY
