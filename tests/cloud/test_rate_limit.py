"""How fast EC2 is asked, by a clock that goes on only while somebody waits."""

from __future__ import annotations

import pytest

from imagepipe.cloud.idempotency import PAUSES, IdempotentCreate
from imagepipe.cloud.rate_limit import CHANGING, LEAST, READING, Pace, RetryBudget, rate_of
from imagepipe.cloud.session import Access, Session
from imagepipe.errors import CloudError
from tests.account import Account
from tests.clocks import Stopped
from tests.local.aws.harness import KEY_ID, SECRET


@pytest.fixture
def clock() -> Stopped:
    return Stopped()


@pytest.fixture
def pace(clock: Stopped) -> Pace:
    return Pace(clock)


def _fail() -> str:
    raise CloudError("importing key pair k: no room for it", code="Unavailable")


def test_a_full_bucket_lets_calls_through_and_an_empty_one_as_fast_as_it_is_refilled(
    pace: Pace, clock: Stopped
) -> None:
    waits = [pace.wait("us-east-1", "CreateImage") for _ in range(CHANGING.burst + 10)]
    assert waits[: CHANGING.burst] == [0.0] * CHANGING.burst
    assert waits[CHANGING.burst :] == pytest.approx([1 / CHANGING.per_second] * 10)
    assert clock.seconds == pytest.approx(10 / CHANGING.per_second)


def test_a_bucket_holds_no_more_than_its_burst_however_long_nobody_asks(pace: Pace, clock: Stopped) -> None:
    clock.seconds = 3600.0
    assert sum(pace.wait("us-east-1", "RunInstances") == 0.0 for _ in range(20)) == rate_of("RunInstances").burst


def test_an_action_and_a_region_do_not_wait_for_another(pace: Pace) -> None:
    while pace.wait("us-east-1", "DescribeImages") == 0.0:
        pass
    assert pace.wait("us-east-1", "DescribeInstances") == 0.0
    assert pace.wait("us-west-2", "DescribeImages") == 0.0
    assert rate_of("DescribeImages") == READING


def test_a_refusal_slows_all_calls_down_and_answers_speed_them_up_again(pace: Pace) -> None:
    pace.wait("us-east-1", "DescribeImages")
    pace.answered("us-east-1", "DescribeImages", throttled=True)
    assert pace.wait("us-east-1", "DescribeImages") == pytest.approx(2 / READING.per_second)
    for _ in range(10):
        pace.answered("us-east-1", "DescribeImages", throttled=True)
    assert pace.wait("us-east-1", "DescribeImages") == pytest.approx(1 / (READING.per_second * LEAST))
    for _ in range(32):
        pace.answered("us-east-1", "DescribeImages", throttled=False)
    assert pace.wait("us-east-1", "DescribeImages") == pytest.approx(1 / READING.per_second)


def test_an_endpoint_that_is_not_of_aws_is_not_held_back_before_it_refuses(clock: Stopped) -> None:
    pace = Pace(clock, is_aws=False)
    assert [pace.wait("us-east-1", "RunInstances") for _ in range(100)] == [0.0] * 100
    pace.answered("us-east-1", "RunInstances", throttled=True)
    assert pace.wait("us-east-1", "RunInstances") == pytest.approx(2 / rate_of("RunInstances").per_second)
    assert pace.wait("us-east-1", "DescribeImages") == 0.0


def test_all_clients_of_a_session_and_botocores_own_tries_share_one_pace(account: Account, clock: Stopped) -> None:
    pace = Pace(clock)
    access = Access(
        endpoint_url=account.cloud.endpoint, region="us-east-1", access_key_id=KEY_ID, secret_access_key=SECRET
    )
    session = Session(access, pace)
    burst = rate_of("RunInstances").burst
    for _ in range(burst - 2):
        pace.wait("us-east-1", "RunInstances")
    account.fault("refuse", "RunInstances", code="RequestLimitExceeded", status=503)
    account.fault("refuse", "RunInstances", code="InsufficientInstanceCapacity", status=400)
    with pytest.raises(Exception, match="InsufficientInstanceCapacity"):
        session.client("ec2", "us-east-1").run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    # Two calls: the first one was refused for being one too many, which empties the bucket.
    assert clock.waits == pytest.approx([1 / (rate_of("RunInstances").per_second / 2)])
    account.fault("refuse", "RunInstances", code="InsufficientInstanceCapacity", status=400)
    with pytest.raises(Exception, match="InsufficientInstanceCapacity"):
        session.client("ec2", "us-east-1", retries=False).run_instances(ImageId="ami-1", MinCount=1, MaxCount=1)
    assert len(clock.waits) == 2


def test_tries_end_when_the_budget_of_all_builds_is_spent(clock: Stopped) -> None:
    creates = IdempotentCreate(None, clock, RetryBudget(reserve=7))
    for _ in range(3):
        with pytest.raises(CloudError, match="no room for it"):
            creates.once(_fail, lambda: None)
    assert clock.waits == [*PAUSES, *PAUSES[:2]]


def test_what_works_gives_tries_back_and_never_more_than_there_were(clock: Stopped) -> None:
    budget = RetryBudget(reserve=1, earned=0.5)
    creates = IdempotentCreate(None, clock, budget)
    assert budget.spend()
    assert not budget.spend()
    for _ in range(10):
        assert creates.once(lambda: "key-1", lambda: None) == "key-1"
    assert budget.spend()
    assert not budget.spend()
