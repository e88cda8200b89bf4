"""Runs in a bucket: one writer at a time, whatever happens to its requests and to its time."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from imagepipe.cli.run_store import past_runs, started_of
from imagepipe.clock import SystemClock
from imagepipe.engine.journal import Journal, Lifetime, read
from imagepipe.engine.journal_store import RunInProgress, RunLost
from imagepipe.errors import CloudError, UsageError
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.state.bucket import StateBucket
from imagepipe.state.location import StateLocation
from tests.local.aws.harness import Cloud, until
from tests.state.shared import RUN, Machine, make_bucket, session

LEASE_SECONDS = 2.0


def _intend(journal: Journal, stage: str = "launch") -> str:
    return journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage=stage).token


def _fault(cloud: Cloud, effect: str, **more: Any) -> None:
    cloud.gateway.backend.faults.add(Fault(**{"effect": effect, "action": "s3:PutObject", "times": 1, **more}))


def _records(machine: Machine) -> list[dict[str, Any]]:
    return [json.loads(line) for _, line in machine.store.journal(RUN.id).records]


def _until_it_can_be_opened(machine: Machine) -> Journal:
    """Open the run as soon as its lease has run out, by S3's clock."""
    opened: list[Journal] = []

    def is_open() -> bool:
        try:
            opened.append(Journal.reopen(machine.store, RUN.id, machine.clock))
        except UsageError:
            time.sleep(0.1)
        return bool(opened)

    until(is_open, 30)
    return opened[0]


def test_a_record_is_one_object_that_only_its_writer_could_write(here: Machine) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    _intend(journal)
    keys = here.bucket.keys(f"runs/{RUN.id}/journal/")
    assert [key.rpartition("/")[2] for key in keys] == ["00000001.json", "00000002.json"]
    assert len({record["writer"] for record in _records(here)}) == 1
    journal.close()


def test_a_record_whose_answer_was_lost_is_not_written_twice(cloud: Cloud, here: Machine) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    _fault(cloud, "cut-after")
    _intend(journal)
    assert [record["type"] for record in _records(here)] == ["run", "intended"]
    _fault(cloud, "cut-after")
    journal.note("finished", outcome="failed", held=[])
    journal.close()
    assert [record["type"] for record in _records(here)] == ["run", "intended", "finished"]


def test_after_an_error_the_journal_goes_on_behind_a_record_that_arrived_all_the_same(
    cloud: Cloud, here: Machine
) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    _fault(cloud, "cut-after", times=9)
    with pytest.raises(CloudError, match=r"writing s3://our-state/team/runs/7f3a/journal/00000002.json"):
        _intend(journal)
    cloud.gateway.backend.faults.clear()
    here.clock.seconds += 1
    token = _intend(journal)
    assert read(here.store, RUN.id).open_claims()[-1].token == token
    assert [record["type"] for record in _records(here)] == ["run", "intended", "intended"]
    journal.close()


def test_a_record_that_nobody_waited_for_and_that_was_refused_is_an_error_of_the_next_one(
    cloud: Cloud, here: Machine
) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    _fault(cloud, "refuse", code="AccessDenied", status=403)

    def go_on() -> None:
        journal.note("output", stage="name", fingerprint="f", value=None)
        _intend(journal)

    with pytest.raises(CloudError, match="s3:PutObject is missing"):
        go_on()
    go_on()
    journal.close()


def test_records_are_stored_in_order_before_one_that_somebody_waits_for(cloud: Cloud, here: Machine) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    _fault(cloud, "delay", seconds=0.05, times=30)
    for number in range(20):
        journal.note("output", stage=f"stage-{number}", fingerprint="f", value=number)
    began = time.monotonic()
    journal.begin("step-1")
    assert time.monotonic() - began > 0.5, "they were under way"
    found = [record.get("stage") for record in _records(here)]
    assert found == [None, *(f"stage-{number}" for number in range(20)), "step-1"]
    journal.close()


def test_a_conflict_with_another_request_is_tried_again(cloud: Cloud, here: Machine) -> None:
    here.clock.wait = lambda event, seconds: False if seconds < 3 else event.wait(60)  # type: ignore[method-assign]
    journal = Journal.create(here.store, RUN, here.clock)
    _fault(cloud, "refuse", code="ConditionalRequestConflict", status=409, times=2)
    _intend(journal)
    assert len(_records(here)) == 2
    journal.close()


def test_of_two_writers_one_loses_the_run_before_its_next_call(cloud: Cloud, here: Machine, there: Machine) -> None:
    here = Machine(cloud, here.disk, lease_seconds=LEASE_SECONDS)
    journal = Journal.create(here.store, RUN, here.clock)
    told: list[str] = []
    journal.on_lost(told.append)
    other = _until_it_can_be_opened(there)  # the first one's renewals wait for its clock, as if the machine was asleep
    with pytest.raises(RunLost, match="taken over by another process"):
        _intend(journal)
    _intend(other)
    assert [record["type"] for record in _records(there)] == ["run", "opened", "intended"]
    until(lambda: told)
    with pytest.raises(RunLost):
        journal.check_held()
    journal.close()
    assert read(there.store, RUN.id).is_alive, "the loser leaves the lease of the other alone"
    other.close()


def test_many_processes_that_open_a_dead_run_at_once_are_one_owner(cloud: Cloud, here: Machine, there: Machine) -> None:
    Journal.create(here.store, RUN, here.clock).close()
    won: list[Journal] = []

    def opening() -> None:
        try:
            won.append(Journal.reopen(there.store, RUN.id, there.clock))
        except UsageError:
            return

    threads = [threading.Thread(target=opening) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].close()


@pytest.mark.parametrize("clock", ["monotonic", "wall"])
def test_an_owner_that_overslept_renews_before_it_goes_on(here: Machine, clock: str) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    before = here.bucket.read(f"runs/{RUN.id}/lease.json")
    if clock == "monotonic":
        here.clock.seconds += 3600
    else:  # a computer that was suspended: its monotonic clock stood still
        later = here.clock.now().replace(hour=5)
        here.clock.now = lambda: later  # type: ignore[method-assign]
    journal.check_held()
    after = here.bucket.read(f"runs/{RUN.id}/lease.json")
    assert before is not None
    assert after is not None
    assert before.etag != after.etag
    _intend(journal)
    journal.close()


def test_an_owner_that_cannot_renew_changes_nothing(cloud: Cloud, here: Machine) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    here.clock.seconds += 3600
    _fault(cloud, "refuse", code="AccessDenied", status=403, times=2)
    with pytest.raises(CloudError, match="s3:PutObject is missing"):
        journal.check_held()
    with pytest.raises(CloudError):
        _intend(journal)
    _intend(journal)
    assert len(_records(here)) == 2
    journal.close()


def test_a_renewal_whose_answer_was_lost_is_the_owners_own(cloud: Cloud, here: Machine) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    for _ in range(2):
        here.clock.seconds += 3600
        _fault(cloud, "cut-after")
        journal.check_held()
    _intend(journal)
    journal.close()
    assert not read(here.store, RUN.id).is_alive


def test_a_living_owner_keeps_its_lease(cloud: Cloud, there: Machine, here: Machine) -> None:
    real: Any = SystemClock()
    living = Machine(cloud, here.disk, clock=real, lease_seconds=LEASE_SECONDS)
    journal = Journal.create(living.store, RUN, real)
    time.sleep(2 * LEASE_SECONDS)
    with pytest.raises(UsageError, match=r"in progress: process .* holds its lease") as refused:
        Journal.reopen(there.store, RUN.id, there.clock)
    assert "after its death the lease runs out within" in str(refused.value.hint)
    _intend(journal)
    journal.close()


def test_a_record_that_was_deleted_is_an_error(cloud: Cloud, here: Machine) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    _intend(journal)
    _intend(journal, "test-launch")
    cloud.client("s3").delete_object(Bucket="our-state", Key="team/runs/7f3a/journal/00000002.json")
    with pytest.raises(UsageError, match="a record was deleted"):
        read(here.store, RUN.id)
    journal.close()


def test_an_ended_run_is_read_with_one_object_and_in_the_same_way(here: Machine) -> None:
    journal = Journal.create(here.store, RUN, here.clock)
    _intend(journal)
    before = here.store.journal(RUN.id)
    journal.close()
    asked: list[str] = []
    here.change_requests("GetObject", lambda request: asked.append(request.url))
    assert here.store.journal(RUN.id) == before
    assert len(asked) == 1


def test_events_arrive_while_the_run_goes_on(cloud: Cloud, here: Machine, there: Machine) -> None:
    from imagepipe.engine import events as ev

    journal = Journal.create(here.store, RUN, here.clock)
    with journal.event_sink() as sink:
        sink(ev.Line(here.clock.now(), RUN.id, "step-1", "out", "hello"))
        sink(ev.StageFinished(here.clock.now(), RUN.id, "step-1", 1.0))
        until(lambda: list(there.store.events(RUN.id)))
    journal.close()


def test_events_whose_answer_was_lost_are_kept_once(cloud: Cloud, here: Machine) -> None:
    from imagepipe.engine import events as ev

    journal = Journal.create(here.store, RUN, here.clock)
    with journal.event_sink() as sink:
        _fault(cloud, "cut-after")
        sink(ev.Line(here.clock.now(), RUN.id, "step-1", "out", "hello"))
    assert len(list(here.store.events(RUN.id))) == 1
    journal.close()


def test_objects_are_encrypted_with_the_key_of_the_state(cloud: Cloud, here: Machine) -> None:
    s3 = cloud.client("s3")
    here.bucket.put("plain", b"")
    assert s3.head_object(Bucket="our-state", Key="team/plain")["ServerSideEncryption"] == "AES256"
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    location = replace(StateLocation.parse("s3://our-state/team"), kms_key=key)
    StateBucket(session(cloud), location, here.clock).create("secret", b"")
    found = s3.head_object(Bucket="our-state", Key="team/secret")
    assert (found["ServerSideEncryption"], found["SSEKMSKeyId"]) == ("aws:kms", key)


def test_a_bucket_of_another_region_is_used_in_its_region(cloud: Cloud, here: Machine) -> None:
    make_bucket(cloud, "eu-west-1", "far-state")
    bucket = StateBucket(session(cloud), StateLocation.parse("s3://far-state"), here.clock)
    assert (bucket.home, bucket.region) == ("us-east-1", "eu-west-1")
    bucket.create("k", b"1")
    assert bucket.keys("") == ["k"]


def test_a_run_that_was_abandoned_is_begun_by_nobody(here: Machine, there: Machine) -> None:
    here.store.abandon(RUN.id)
    with pytest.raises(RunInProgress, match="cleaned up before it began"):
        Journal.create(there.store, RUN, there.clock)
    assert not _records(here)
    assert not here.store.is_held(RUN.id)
    assert here.store.runs() == []


def test_a_run_that_was_deleted_by_hand_does_not_hide_the_others(here: Machine) -> None:
    Journal.create(here.store, RUN, here.clock).close()
    here.bucket.put("index/20261101T000000Z-aa11bb22", b"")
    found = sorted(past_runs(here.store), key=lambda pair: started_of(here.store, *pair))
    assert [run for run, _ in found] == ["aa11bb22", RUN.id]
