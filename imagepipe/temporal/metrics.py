"""The numbers that a worker reports to Prometheus, beside those of Temporal's own library."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.common import MetricMeter


class Metrics:
    """Counts of a worker's bakes."""

    def __init__(self, meter: MetricMeter) -> None:
        self.running = 0
        """Bakes that run at this moment."""
        self._running = meter.create_gauge("imagepipe_bakes_running", "Bakes that run in this worker")
        self._ended = meter.create_counter("imagepipe_bakes_ended", "Bakes that ended in this worker, by outcome")
        self._seconds = meter.create_histogram_float("imagepipe_bake_seconds", "Duration of bakes", "s")

    @contextmanager
    def bake(self) -> Iterator[None]:
        """Count a bake while it runs, and how it ends."""
        began, outcome = time.monotonic(), "failed"
        self._change(1)
        try:
            yield
            outcome = "baked"
        finally:
            self._change(-1)
            self._ended.add(1, {"outcome": outcome})
            self._seconds.record(time.monotonic() - began, {"outcome": outcome})

    def _change(self, by: int) -> None:
        self.running += by
        self._running.set(self.running)
