"""What calls of every room share: ids in chunks that a filter takes, and things that are gone already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imagepipe.errors import CloudError

FILTER_VALUES = 200
"""The most that EC2 takes in one filter."""


def chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    """The ids in lists that one filter takes."""
    for start in range(0, len(ids), FILTER_VALUES):
        yield list(ids[start : start + FILTER_VALUES])


@contextmanager
def gone_is_fine(*codes: str) -> Iterator[None]:
    """Let a CloudError pass that says, by its code, that the thing is not there any more."""
    try:
        yield
    except CloudError as error:
        if error.code not in codes:
            raise
