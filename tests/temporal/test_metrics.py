"""How bakes count in a worker's numbers."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.exceptions import ApplicationError, CancelledError

from imagepipe.temporal.messages import BAKE_FAILED
from imagepipe.temporal.metrics import outcome_of


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ApplicationError("step 1: exit 1", type=BAKE_FAILED), "failed"),
        (ValueError("a bug"), "failed"),
        (asyncio.CancelledError(), "cancelled"),
        (CancelledError("by the user"), "cancelled"),
        (ApplicationError("another process has the run", type="RunHeld"), "interrupted"),
        (ApplicationError("this worker is shutting down", type="WorkerStopped"), "interrupted"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_only_a_bake_that_failed_counts_as_failed(error: BaseException, outcome: str) -> None:
    assert outcome_of(error) == outcome
