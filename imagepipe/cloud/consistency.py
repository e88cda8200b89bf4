"""Helpers for EC2's filters and its eventual consistency."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event
from typing import TypeVar

from imagepipe.clock import Clock
from imagepipe.errors import CloudError

T = TypeVar("T")

FILTER_VALUES = 200
"""Largest number of values in one filter of EC2."""


def chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """Split ids into lists that fit into one filter."""
    for start in range(0, len(ids), FILTER_VALUES):
        yield list(ids[start : start + FILTER_VALUES])


FRESH_PAUSES = (0.25, 0.5, 1.0, 2.0, 2.0)
"""Pauses in seconds between look-ups of a new resource: 5.75 s in all."""


def retry_until_visible(call: Callable[[], T], clock: Clock, *codes: str) -> T:
    """Return the result of a call; retry while it fails with one of these codes because a resource is not visible yet.

    A resource may be unknown for seconds after EC2 returned its id (EC2 API guide, "Eventual consistency").
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
    """Make a call that deletes a resource. Return False if it fails with one of these codes: it does not exist."""
    try:
        call()
    except CloudError as error:
        if error.code not in codes:
            raise
        return False
    return True


@contextmanager
def ignore_missing(*codes: str) -> Iterator[None]:
    """Ignore a CloudError with one of these codes: the resource is already gone."""
    try:
        yield
    except CloudError as error:
        if error.code not in codes:
            raise
