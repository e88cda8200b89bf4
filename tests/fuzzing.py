"""Readers and whatever a file may hold: how many examples are tried, and what none of them may take.

`make fuzz` tries far more of them, others each time.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")
EXAMPLES = int(os.environ.get("IMAGEPIPE_FUZZ_EXAMPLES", "60"))
"""Given, the examples are others each time; else always the same, so that a red run is red for everybody."""
NO_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
"""Checks that are left out: the first suits no test here, the second depends on the machine's speed."""
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,  # other work on the machine must not fail a test; what hangs is ended by `within_bounds`
    derandomize="IMAGEPIPE_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=NO_CHECKS,
)
HANGS_SECONDS = 300
LARGEST_BYTES = 128 << 20


def _most_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def within_bounds() -> Iterator[None]:
    """Fails what hangs, or takes memory by far more than the examples have (by the process's high-water mark)."""

    def hang(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"it goes on after {HANGS_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(HANGS_SECONDS)
    most = _most_bytes()
    try:
        yield
        assert _most_bytes() - most < LARGEST_BYTES
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_or_refused(read: Callable[[], T], error: type[Exception], says: str) -> T | None:
    """Read within bounds; return None if this error refuses it, with a message that contains the text."""
    try:
        with within_bounds():
            return read()
    except error as refused:
        said = str(refused)
    assert said
    assert says in said
    return None
