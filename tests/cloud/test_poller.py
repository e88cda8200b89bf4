from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from imagepipe.clock import Deadline, SystemClock
from imagepipe.cloud.poller import LONGEST_SECONDS, Poller
from imagepipe.engine.cancel import Cancel
from imagepipe.errors import Cancelled, CloudError


class Images:
    """Answers Describe from a table, and counts."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.calls: list[list[str]] = []
        self.errors: list[CloudError] = []

    def describe(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        self.calls.append(list(ids))
        if self.errors:
            raise self.errors.pop(0)
        return {id: {"State": self.states[id]} for id in ids if id in self.states}


CLOCK = SystemClock()


@pytest.fixture
def images() -> Images:
    return Images()


@pytest.fixture
def poller(images: Images) -> Poller:
    return Poller({"image": images.describe}, CLOCK)


@pytest.fixture
def cancel() -> Cancel:
    return Cancel(CLOCK)


def _until(poller: Poller, id: str, cancel: Cancel, *, seconds: float = 10) -> str:
    def settled(seen: Mapping[str, Any] | None) -> str | None:
        state = seen["State"] if seen else None
        if state == "failed":
            raise CloudError("it failed", code="failed")
        return state if state == "available" else None

    return poller.until(
        "image",
        id,
        settled,
        operation=f"waiting for {id}",
        deadline=Deadline.after(seconds, CLOCK),
        cancel=cancel,
        state=lambda seen: str(seen["State"]),
    )


def test_what_is_settled_already_is_seen_at_once(poller: Poller, images: Images, cancel: Cancel) -> None:
    images.states["ami-1"] = "available"
    assert _until(poller, "ami-1", cancel) == "available"
    assert len(images.calls) == 1


def test_a_change_is_seen_at_the_next_look_at_most_two_seconds_later(
    poller: Poller, images: Images, cancel: Cancel
) -> None:
    images.states["ami-1"] = "pending"
    looks: list[int] = []

    def change() -> None:
        looks.append(len(images.calls))
        images.states["ami-1"] = "available"

    threading.Timer(1.2, change).start()
    _until(poller, "ami-1", cancel, seconds=60)
    assert len(images.calls) <= looks[0] + 2, "one look may have been on its way"
    assert LONGEST_SECONDS <= 1


def test_fifty_waits_cost_one_call_a_tick(poller: Poller, images: Images, cancel: Cancel) -> None:
    ids = [f"ami-{number}" for number in range(50)]
    images.states.update(dict.fromkeys(ids, "pending"))
    threads = [threading.Thread(target=_until, args=(poller, id, cancel)) for id in ids]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    images.states.update(dict.fromkeys(ids, "available"))
    for thread in threads:
        thread.join(10)
    assert len(images.calls) < 25, "50 waits that asked by themselves would have made some 200 calls"
    assert len(images.calls[-1]) > 1


def test_an_id_that_ec2_does_not_know_yet_is_waited_for(poller: Poller, images: Images, cancel: Cancel) -> None:
    threading.Timer(0.3, lambda: images.states.update({"ami-1": "available"})).start()
    assert _until(poller, "ami-1", cancel) == "available"


def test_a_failure_is_raised_to_the_one_who_waits_for_it(poller: Poller, images: Images, cancel: Cancel) -> None:
    images.states.update({"ami-1": "failed", "ami-2": "available"})
    with pytest.raises(CloudError, match="it failed"):
        _until(poller, "ami-1", cancel)
    assert _until(poller, "ami-2", cancel) == "available"


def test_the_deadline_says_what_was_last_seen(poller: Poller, images: Images, cancel: Cancel) -> None:
    images.states["ami-1"] = "pending"
    with pytest.raises(CloudError, match=r"waiting for ami-1: timed out after 0\.5 s; last state: pending"):
        _until(poller, "ami-1", cancel, seconds=0.5)


def test_a_cancel_ends_a_wait_at_once(poller: Poller, images: Images, cancel: Cancel) -> None:
    images.states["ami-1"] = "pending"
    threading.Timer(0.2, lambda: cancel.set("got SIGINT")).start()
    began = time.monotonic()
    with pytest.raises(Cancelled):
        _until(poller, "ami-1", cancel)
    assert time.monotonic() - began < 50


def test_describe_may_fail_now_and_then(poller: Poller, images: Images, cancel: Cancel) -> None:
    images.states["ami-1"] = "available"
    images.errors = [CloudError("throttled", code="RequestLimitExceeded")] * 2
    assert _until(poller, "ami-1", cancel) == "available"


def test_a_missing_permission_is_not_waited_out(poller: Poller, images: Images, cancel: Cancel) -> None:
    images.errors = [CloudError("no", code="UnauthorizedOperation")]
    with pytest.raises(CloudError, match="no"):
        _until(poller, "ami-1", cancel)


def test_no_thread_is_left_when_nobody_waits(poller: Poller, images: Images, cancel: Cancel) -> None:
    images.states["ami-1"] = "available"
    _until(poller, "ami-1", cancel)
    until = time.monotonic() + 5
    while any(t.name == "poller" for t in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(t.name == "poller" for t in threading.enumerate())
