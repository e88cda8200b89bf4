"""Poll for events that nothing announces."""

from __future__ import annotations

import time
from collections.abc import Iterator


def tries(seconds: float, *, pause: float = 0.02) -> Iterator[None]:
    """Yield at once, and again after each pause until so many seconds are over."""
    end = time.monotonic() + seconds
    while True:
        yield
        if time.monotonic() > end:
            return
        time.sleep(pause)
