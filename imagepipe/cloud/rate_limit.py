"""Client-side copies of EC2's token buckets, and a retry budget; all builds of a process share them.

EC2 limits the rate of each action per account and region (EC2 developer guide, "Request throttling for the Amazon
EC2 API"). Twenty builds at once would exceed it, and their retries would add more calls. So calls wait here first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from threading import Event, Lock
from typing import Any

from imagepipe.clock import Clock
from imagepipe.cloud.errors import THROTTLING
from imagepipe.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """The parameters of a token bucket."""

    burst: int
    """Size of the bucket in calls."""
    per_second: float


READING = Rate(100, 20)
CHANGING = Rate(50, 5)
SOME: Mapping[str, Rate] = {"RunInstances": Rate(5, 2)}
"""Rates from EC2's table: of Describe actions, of mutating actions, and of actions with their own figures."""
LEAST = 1 / 16
"""Smallest share of the rate, for an action that is throttled again and again because of other processes."""
RECOVERY = 1 / 32
"""Share of the rate that each answered call restores."""


def rate_of(action: str) -> Rate:
    return SOME.get(action) or (READING if action.startswith(("Describe", "Get")) else CHANGING)


@dataclass(slots=True)
class _Bucket:
    rate: Rate
    tokens: float
    at: float
    """Time of the token count, in the clock's monotonic seconds."""
    is_limited: bool
    share: float = 1.0
    """Share of the rate that is used; smaller after a refusal."""


class Pace:
    """Delays calls that exceed the rate, and lowers the rate when EC2 throttles; thread-safe."""

    def __init__(self, clock: Clock, *, is_aws: bool = True) -> None:
        """Another endpoint than AWS has limits of its own: an action is not delayed there before it was throttled."""
        self._clock = clock
        self._is_aws = is_aws
        self._lock = Lock()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def hold(self, client: Any) -> None:
        """Make every attempt of this client's calls wait for its turn, botocore's retries included."""
        events, region = client.meta.events, client.meta.region_name
        service = client.meta.service_model.service_id.hyphenize()

        def before(event_name: str, **_: Any) -> None:
            self.wait(region, event_name.rpartition(".")[2])

        def after(event_name: str, response: Any = None, **_: Any) -> None:
            code = response[1].get("Error", {}).get("Code") if response else None
            self.answered(region, event_name.rpartition(".")[2], throttled=code in THROTTLING)

        events.register(f"before-send.{service}", before)
        # The handler returns None, which leaves the decision about a retry to botocore's own handler.
        events.register_first(f"needs-retry.{service}", after)

    def wait(self, region: str, action: str) -> float:
        """Wait for a token and take it. Return the seconds waited."""
        with self._lock:
            bucket = self._filled(region, action)
            if not bucket.is_limited:
                return 0.0
            bucket.tokens -= 1
            # With a negative count, each call waits for its own token, so calls proceed one by one in their order.
            seconds = max(0.0, -bucket.tokens / (bucket.rate.per_second * bucket.share))
        if seconds:
            self._clock.wait(Event(), seconds)
        return seconds

    def answered(self, region: str, action: str, *, throttled: bool) -> None:
        """Adapt the rate to an answer of EC2."""
        with self._lock:
            bucket = self._filled(region, action)
            if throttled:
                bucket.is_limited = True
                bucket.tokens = min(bucket.tokens, 0.0)
                bucket.share = max(LEAST, bucket.share / 2)
            else:
                bucket.share = min(1.0, bucket.share + RECOVERY)

    def _filled(self, region: str, action: str) -> _Bucket:
        now, rate = self._clock.monotonic(), rate_of(action)
        bucket = self._buckets.setdefault((region, action), _Bucket(rate, rate.burst, now, self._is_aws))
        gained = (now - bucket.at) * rate.per_second * bucket.share
        bucket.tokens, bucket.at = min(float(rate.burst), bucket.tokens + gained), now
        return bucket


@dataclass
class RetryBudget:
    """A budget for retries that botocore does not make itself.

    If every call fails, retries only add load and delay the error, so they stop when the reserve is spent. Successful
    calls refill it, so that a region that fails now and then never runs out. botocore has such a budget for its own
    retries, one for each client.
    """

    reserve: float = 50
    earned: float = 0.1
    """Refill per successful call: in the long run, retries add at most a tenth more calls."""
    _left: float = field(init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        self._left = self.reserve

    def spend(self) -> bool:
        """Return whether one more retry is allowed, and count it."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def earn(self) -> None:
        """Count a successful call."""
        with self._lock:
            self._left = min(self.reserve, self._left + self.earned)
