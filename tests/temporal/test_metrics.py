"""How bakes count in a worker's numbers."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.exceptions import ApplicationError

from imagepipe.temporal.messages import BAKE_FAILED
from imagepipe.temporal.metrics import outcome_of


@pytest.mark.parametrize(
    ("error", "was_cancelled", "outcome"),
    [
        (ApplicationError("step 1: exit 1", type=BAKE_FAILED), False, "failed"),
        (ValueError("a bug"), False, "failed"),
        (asyncio.CancelledError(), True, "cancelled"),
        (asyncio.CancelledError(), False, "interrupted"),
        (ApplicationError("another process has the run", type="RunHeld"), False, "interrupted"),
        (ApplicationError("this worker is shutting down", type="WorkerStopped"), False, "interrupted"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_only_a_bake_that_failed_counts_as_failed(error: BaseException, was_cancelled: bool, outcome: str) -> None:
    assert outcome_of(error, was_cancelled=was_cancelled) == outcome
