"""How fast we ask: EC2's own token buckets kept on this side, and a budget of tries, both shared by all of a process.

EC2 limits each action by itself, for an account and region (EC2 developer guide, "Request throttling for the Amazon
EC2 API"). Twenty builds at once would run into that, each with its own tries, which are calls again; so they wait here
first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

from imagepipe.clock import Clock
from imagepipe.cloud.errors import THROTTLING


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's figures."""

    burst: int
    """Calls at once, from a full bucket."""
    per_second: float


READING = Rate(100, 20)
CHANGING = Rate(50, 5)
SOME: Mapping[str, Rate] = {"RunInstances": Rate(5, 2)}
"""By EC2's own table: Describe actions; those that change something; and what has figures of its own."""
LEAST = 1 / 16
"""Of its rate, for an action that is refused again and again: another process is using up the account's."""
RECOVERY = 1 / 32
"""Of its rate, given back by each call that is answered."""


def rate_of(action: str) -> Rate:
    return SOME.get(action) or (READING if action.startswith(("Describe", "Get")) else CHANGING)


@dataclass(slots=True)
class _Bucket:
    rate: Rate
    tokens: float
    at: float
    """When the tokens were so many, in the clock's monotonic seconds."""
    share: float = 1.0
    """Of the rate: less after a refusal."""


class Pace:
    """Waits before a call where too many were made, and longer once EC2 says so. Safe from any thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def hold(self, client: Any) -> None:
        """Let every try of this client's calls, botocore's own among them, wait for its turn."""
        events, region = client.meta.events, client.meta.region_name
        service = client.meta.service_model.service_id.hyphenize()

        def before(event_name: str, **_: Any) -> None:
            self.wait(region, event_name.rpartition(".")[2])

        def after(event_name: str, response: Any = None, **_: Any) -> None:
            code = response[1].get("Error", {}).get("Code") if response else None
            self.answered(region, event_name.rpartition(".")[2], throttled=code in THROTTLING)

        events.register(f"before-send.{service}", before)
        # Its answer says whether to try again: None leaves that to botocore's own handler.
        events.register_first(f"needs-retry.{service}", after)

    def wait(self, region: str, action: str) -> float:
        """Take a token, and wait until there was one; the seconds waited."""
        with self._lock:
            bucket = self._filled(region, action)
            bucket.tokens -= 1
            # Below nothing, each waits for its own token: so they go one by one, in the order in which they came.
            seconds = max(0.0, -bucket.tokens / (bucket.rate.per_second * bucket.share))
        if seconds:
            self._clock.wait(Event(), seconds)
        return seconds

    def answered(self, region: str, action: str, *, throttled: bool) -> None:
        """What EC2 thought of the pace."""
        with self._lock:
            bucket = self._filled(region, action)
            if throttled:
                bucket.tokens = min(bucket.tokens, 0.0)
                bucket.share = max(LEAST, bucket.share / 2)
            else:
                bucket.share = min(1.0, bucket.share + RECOVERY)

    def _filled(self, region: str, action: str) -> _Bucket:
        now, rate = self._clock.monotonic(), rate_of(action)
        bucket = self._buckets.setdefault((region, action), _Bucket(rate, rate.burst, now))
        gained = (now - bucket.at) * rate.per_second * bucket.share
        bucket.tokens, bucket.at = min(float(rate.burst), bucket.tokens + gained), now
        return bucket


@dataclass
class RetryBudget:
    """How many tries may still be made again, of what botocore does not try again by itself.

    Where everything fails, tries are but more load, and a longer wait for the same error: they end when the reserve is
    spent. What works gives some back, so that a region that fails now and then never runs out. botocore has the like of
    it for its own tries, by client, and ours share their clients.
    """

    reserve: float = 50
    earned: float = 0.1
    """By each call that works: in the long run a tenth more calls than without any tries."""
    _left: float = field(init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def __post_init__(self) -> None:
        self._left = self.reserve

    def spend(self) -> bool:
        """Whether one more try may be made; it is counted."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def earn(self) -> None:
        """A call worked."""
        with self._lock:
            self._left = min(self.reserve, self._left + self.earned)
