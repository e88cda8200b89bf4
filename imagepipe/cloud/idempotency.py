"""Make create calls idempotent if EC2 has no client token for them.

ImportKeyPair, CreateSecurityGroup, CreateSnapshots, RegisterImage and CreateImage can take effect even if their
answer is lost. So botocore must not retry them: before a second attempt we look for a resource with our token.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any, TypeVar

from imagepipe.clock import Clock
from imagepipe.cloud.errors import THROTTLING
from imagepipe.cloud.rate_limit import RetryBudget
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses in seconds between attempts: 15.5 s in all, about as long as botocore's five attempts."""
LOOKUP_PAUSES = (0.5, 1.0, 2.0)
"""Pauses in seconds between look-ups: 4 s in all, with the first of PAUSES, which is usually long enough."""
_MAYBE_MADE = frozenset({"NoAnswer", "InternalError", "InternalFailure", "500"})
_UNCERTAIN = _MAYBE_MADE | {"ServiceUnavailable", "Unavailable", "503"}


@dataclass(frozen=True)
class IdempotentCreate:
    """Makes idempotent create calls in one region."""

    client: Any
    """The client of the calls, with botocore's retries switched off."""
    clock: Clock
    budget: RetryBudget

    def once(self, create: Callable[[], T], find: Callable[[], T | None]) -> T:
        """Return the id of the resource that `create` or an earlier attempt created; `find` finds it by token.

        If the name is taken (`*.Duplicate`), an earlier attempt may have taken it although its answer was lost. So the
        resource is returned if it has our token.
        """
        may_be_made = False
        for pause in (*PAUSES, None):
            try:
                created = create()
            except CloudError as error:
                may_be_made = may_be_made or error.code in _MAYBE_MADE
                if error.code.endswith(".Duplicate"):
                    if (ours := self._find_again(find, again=may_be_made)) is not None:
                        return ours
                    raise
                if error.code not in _UNCERTAIN | THROTTLING:
                    raise
                if pause is None or not self.budget.spend():
                    raise
                self.clock.wait(Event(), pause)
                if error.code in _UNCERTAIN and (ours := self._find_again(find, again=may_be_made)) is not None:
                    return ours
            else:
                self.budget.earn()
                return created
        raise AssertionError("the last try returns or raises")

    def _find_again(self, find: Callable[[], T | None], *, again: bool) -> T | None:
        """Look for the resource several times: EC2 may show it a while after it was created."""
        for pause in LOOKUP_PAUSES if again else ():
            if (ours := find()) is not None:
                return ours
            self.clock.wait(Event(), pause)
        return find()
