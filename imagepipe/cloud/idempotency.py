"""Creates that EC2 has no client token for: made once, though an answer is lost.

ImportKeyPair, CreateSecurityGroup, CreateSnapshots, RegisterImage and CreateImage can take effect and lose their
answer. So botocore must not try them again by itself: before any second try we look for what carries our token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Any, TypeVar

from imagepipe.clock import Clock
from imagepipe.cloud.errors import THROTTLING
from imagepipe.cloud.rate_limit import RetryBudget
from imagepipe.errors import CloudError

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try: 15.5 s in all, about botocore's own five attempts."""
LOOKS = (0.5, 1.0, 2.0)
"""Seconds between two looks for what may have been made: 4 s with the first pause, longer than lags usually are."""
_MAYBE_MADE = frozenset({"NoAnswer", "InternalError", "InternalFailure", "500"})
_UNCERTAIN = _MAYBE_MADE | {"ServiceUnavailable", "Unavailable", "503"}


@dataclass(frozen=True)
class IdempotentCreate:
    """Makes such creates, in one region."""

    client: Any
    """It must not try again by itself."""
    clock: Clock
    budget: RetryBudget

    def once(self, create: Callable[[], T], find: Callable[[], T | None]) -> T:
        """What `create` makes, or what an earlier try of it made: `find` looks for it by the token in its tag.

        A name that is taken (`*.Duplicate`) by what has our token is our own, made by a try whose answer was lost.
        """
        may_be_made = False
        for pause in (*PAUSES, None):
            try:
                made = create()
            except CloudError as error:
                may_be_made = may_be_made or error.code in _MAYBE_MADE
                if error.code.endswith(".Duplicate"):
                    if (ours := self._looked_for(find, again=may_be_made)) is not None:
                        return ours
                    raise
                if error.code not in _UNCERTAIN | THROTTLING:
                    raise
                if pause is None or not self.budget.spend():
                    raise
                self.clock.wait(Event(), pause)
                if error.code in _UNCERTAIN and (ours := self._looked_for(find, again=may_be_made)) is not None:
                    return ours
            else:
                self.budget.earn()
                return made
        raise AssertionError("the last try returns or raises")

    def _looked_for(self, find: Callable[[], T | None], *, again: bool) -> T | None:
        """What there is; what was made and not told of may be shown a while later, and is looked for again."""
        for pause in LOOKS if again else ():
            if (ours := find()) is not None:
                return ours
            self.clock.wait(Event(), pause)
        return find()
