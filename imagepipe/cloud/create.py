"""Creates that EC2 has no client token for: made once, though an answer is lost.

ImportKeyPair, CreateSecurityGroup, CreateSnapshots, RegisterImage and CreateImage can take effect and lose their
answer. So botocore must not try them again by itself: before any second try we look for what carries our token.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from imagepipe.clock import Clock
from imagepipe.cloud.translate import THROTTLING
from imagepipe.errors import CloudError

T = TypeVar("T")

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try: 15.5 s in all, about botocore's own five attempts."""
LOOKS = (0.5, 1.0, 2.0)
"""Seconds between two looks for what may have been made: 4 s with the first pause, longer than lags usually are."""
_UNCERTAIN = frozenset(
    {"NoAnswer", "InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "500", "503"}
)


def create_once(create: Callable[[], T], find: Callable[[], T | None], clock: Clock) -> T:
    """What `create` makes, or what an earlier try of it made: `find` looks for it by the token in its tag.

    A name that is taken (`*.Duplicate`) by what has our token is our own, made by a try whose answer was lost.
    """
    was_lost = False
    for pause in (*PAUSES, None):
        try:
            return create()
        except CloudError as error:
            was_lost = was_lost or error.code == "NoAnswer"
            if error.code.endswith(".Duplicate"):
                if (ours := _looked_for(find, clock, again=was_lost)) is not None:
                    return ours
                raise
            if pause is None or error.code not in _UNCERTAIN | THROTTLING:
                raise
            clock.wait(Event(), pause)
            if error.code in _UNCERTAIN and (ours := _looked_for(find, clock, again=was_lost)) is not None:
                return ours
    raise AssertionError("the last try returns or raises")


def _looked_for(find: Callable[[], T | None], clock: Clock, *, again: bool) -> T | None:
    """What there is; what an answer that was lost told of may be shown a while later, and is looked for again."""
    for pause in LOOKS if again else ():
        if (ours := find()) is not None:
            return ours
        clock.wait(Event(), pause)
    return find()
