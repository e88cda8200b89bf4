"""What calls of every room share: ids in chunks that a filter takes, and things that are gone already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

from imagepipe.clock import Clock
from imagepipe.errors import CloudError

T = TypeVar("T")

FILTER_VALUES = 200
"""The most that EC2 takes in one filter."""


def chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """The ids in lists that one filter takes."""
    for start in range(0, len(ids), FILTER_VALUES):
        yield list(ids[start : start + FILTER_VALUES])


FRESH_PAUSES = (0.25, 0.5, 1.0, 2.0, 2.0)
"""Seconds before each further look at what was made a moment ago: 5.75 s in all."""


def retry_until_visible(call: Callable[[], T], clock: Clock, *codes: str) -> T:
    """What the call gives, tried again while EC2 does not know yet what it names, and says so by one of these codes.

    A thing may be unknown for seconds after EC2 gave us its id (EC2 API guide, "Eventual consistency").
    """
    for pause in FRESH_PAUSES:
        try:
            return call()
        except CloudError as error:
            if error.code not in codes:
                raise
        clock.wait(Event(), pause)
    return call()


def delete_if_exists(call: Callable[[], object], *codes: str) -> bool:
    """Make a call that gives something back; false where EC2 says, by one of these codes, that it does not know it."""
    try:
        call()
    except CloudError as error:
        if error.code not in codes:
            raise
        return False
    return True


@contextmanager
def ignore_missing(*codes: str) -> Iterator[None]:
    """Let a CloudError pass that says, by its code, that the thing is not there any more."""
    try:
        yield
    except CloudError as error:
        if error.code not in codes:
            raise
