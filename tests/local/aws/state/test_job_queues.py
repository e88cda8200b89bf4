"""Background work can be made slow, and be released again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from imagepipe.clock import SystemClock
from imagepipe.local.aws.state.job_queues import Closing, JobQueues


@pytest.fixture
def queues() -> Iterator[JobQueues]:
    queues = JobQueues(SystemClock())
    yield queues
    queues.close()


def _slow(queues: JobQueues) -> Future[None]:
    """Work that waits for an hour."""
    queues.set_delay("image", 3600)
    return queues.submit("i-1", lambda: queues.delay("image"))


def test_waiting_work_goes_on_as_soon_as_its_delay_is_shortened(queues: JobQueues) -> None:
    work = _slow(queues)
    queues.set_delay("snapshot", 0)
    assert not work.done(), "another kind"
    queues.set_delay("image", 0)
    assert work.result(60) is None


def test_waiting_work_ends_with_the_process(queues: JobQueues) -> None:
    work = _slow(queues)
    queues.close()
    with pytest.raises(Closing):
        work.result(60)
