"""The numbers that a worker reports to Prometheus, beside those of Temporal's own library."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import activity
from temporalio.common import MetricMeter
from temporalio.exceptions import ApplicationError

from imagepipe.temporal import messages

OUTCOMES = ("baked", "failed", "cancelled", "interrupted")
"""`interrupted`: another worker has the bake, or resumes it."""


class Metrics:
    """Counts of a worker's bakes."""

    def __init__(self, meter: MetricMeter) -> None:
        self.running = 0
        """Bakes that run at this moment."""
        self._running = meter.create_gauge("imagepipe_bakes_running", "Bakes that run in this worker")
        self._ended = meter.create_counter("imagepipe_bakes_ended", "Bakes that ended in this worker, by outcome")
        self._seconds = meter.create_histogram_float("imagepipe_bake_seconds", "Duration of bakes", "s")
        self._change(0)  # a number that is missing looks like a worker that is
        for outcome in OUTCOMES:
            self._ended.add(0, {"outcome": outcome})

    @contextmanager
    def bake(self) -> Iterator[None]:
        """Count a bake while it runs, and how it ends."""
        began, outcome = time.monotonic(), "baked"
        self._change(1)
        try:
            yield
        except BaseException as error:
            details = activity.cancellation_details()
            outcome = outcome_of(error, was_cancelled=details is not None and details.cancel_requested)
            raise
        finally:
            self._change(-1)
            self._ended.add(1, {"outcome": outcome})
            self._seconds.record(time.monotonic() - began, {"outcome": outcome})

    def _change(self, by: int) -> None:
        self.running += by
        self._running.set(self.running)


def outcome_of(error: BaseException, *, was_cancelled: bool) -> str:
    """Return the outcome of a bake that ended with this exception, one of OUTCOMES.

    `was_cancelled`: somebody cancelled the bake. Otherwise a cancel means that the server gave it to another worker.
    """
    if isinstance(error, asyncio.CancelledError):
        return "cancelled" if was_cancelled else "interrupted"
    is_of_bake = not isinstance(error, ApplicationError) or error.type == messages.BAKE_FAILED
    return "failed" if is_of_bake else "interrupted"
