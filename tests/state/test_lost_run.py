"""A run whose owner overslept: it stops, and leaves everything to the new owner."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from imagepipe.cleanup.sweep import Heartbeat
from imagepipe.cloud.ec2 import Regions
from imagepipe.engine import events as ev
from imagepipe.engine.journal import Journal, Lifetime, read
from imagepipe.engine.journal_store import RunLost
from imagepipe.engine.stage import Context
from imagepipe.errors import UsageError
from tests.engine.rig import RUN, Rig, holding
from tests.local.aws.harness import Cloud, until
from tests.state.shared import Machine, session


def _taken_over(there: Machine) -> Journal:
    """Open the run on another machine as soon as its lease has run out, by S3's clock."""
    opened: list[Journal] = []

    def is_open() -> bool:
        try:
            opened.append(Journal.reopen(there.store, RUN.id, there.clock))
        except UsageError:
            time.sleep(0.1)
        return bool(opened)

    until(is_open, 30)
    return opened[0]


@pytest.fixture
def sleeper(cloud: Cloud, here: Machine) -> Machine:
    """A machine with a short lease, whose renewals wait for its clock, as those of a suspended laptop do."""
    return Machine(cloud, here.disk, lease_seconds=2.0)


def test_a_run_that_was_lost_cleans_up_nothing_and_writes_nothing(
    sleeper: Machine, there: Machine, tmp_path: Path
) -> None:
    rig = Rig(tmp_path)
    rig.journal.close()
    rig.journal = Journal.create(sleeper.store, RUN, sleeper.clock)
    rig.journal.on_lost(rig.cancel.set)
    first = rig.add("first", holding("instance"))
    others: list[Journal] = []

    def oversleep(ctx: Context) -> None:
        others.append(_taken_over(there))
        sleeper.clock.seconds += 3600
        ctx.intend("image", "us-east-1", lifetime=Lifetime.PRODUCT)

    rig.add("second", oversleep, first)
    with rig.journal.event_sink() as sink:
        rig.events = ev.Events(RUN.id, rig.clock, rig.events.masker, [sink])
        outcome = rig.execute()
    rig.journal.close()
    assert isinstance(outcome.failures[0].error, RunLost)
    assert rig.released == [], "the instance is the other owner's"
    assert [type(held.error) for held in outcome.held] == [RunLost]
    past = read(there.store, RUN.id)
    assert [claim.kind for claim in past.open_claims()] == ["instance"]
    assert past.outcome is None
    assert not any(isinstance(event, ev.RunFinished) for event in there.store.events(RUN.id))
    others[0].close()


def test_a_lost_run_makes_no_call_that_changes_something_and_may_still_ask(
    cloud: Cloud, sleeper: Machine, there: Machine
) -> None:
    journal = Journal.create(sleeper.store, RUN, sleeper.clock)
    journal.bind(journal.intend("instance", "us-east-1", lifetime=Lifetime.RUN, stage="launch"), "i-1")
    regions = Regions(session(cloud), sleeper.clock)
    regions.session.check_before_changes(journal.check_held)
    ec2 = regions["us-east-1"]
    other = _taken_over(there)
    sleeper.clock.seconds += 3600
    before = cloud.gateway.backend.calls.counted()
    with pytest.raises(RunLost):
        ec2.instances.terminate("i-0123456789abcdef0")
    with pytest.raises(RunLost):
        ec2.keys.import_public("k", "ssh-ed25519 AAAA", token="t", tags={})
    Heartbeat(journal, regions, sleeper.clock).beat(sleeper.clock.now())
    counted = cloud.gateway.backend.calls.counted()
    made = {name for name, count in counted.items() if count != before.get(name)}
    assert not {name for name in made if name.startswith("ec2:") and not name.startswith("ec2:Describe")}
    ec2.instances.describe_many(["i-0123456789abcdef0"])
    journal.close()
    other.close()
