"""Threads that work ahead: in order, not too far, and ended whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from imagepipe.bundle.flow import ahead, in_order, in_sizes


def _threads() -> int:
    return sum(thread.name.startswith("bundle") for thread in threading.enumerate())


def test_items_come_in_their_order() -> None:
    assert list(ahead(range(100), depth=3)) == list(range(100))
    assert list(in_order(lambda x: x * x, range(100), threads=4, waiting=6)) == [x * x for x in range(100)]
    assert _threads() == 0


def test_no_more_is_made_ahead_than_was_said() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    flow = ahead(items(), depth=3)
    next(flow)
    time.sleep(0.05)
    assert len(made) <= 6
    flow.close()


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_an_error_is_raised_where_the_items_are_taken(error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise error

    taken: list[int] = []
    with pytest.raises(type(error)):
        taken.extend(ahead(items(), depth=3))
    assert _threads() == 0

    def fail(_: int) -> int:
        raise error

    with pytest.raises(type(error)):
        list(in_order(fail, range(100), threads=2, waiting=3))
    assert _threads() == 0


def test_closing_ends_the_thread_and_closes_the_items() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    flow = ahead(items(), depth=1)
    assert next(flow) == 1
    flow.close()
    assert closed.is_set()
    assert _threads() == 0


@pytest.mark.parametrize(
    ("pieces", "blocks"),
    [
        ([], []),
        ([b""], []),
        ([b"abc"], [b"abc"]),
        ([b"abcd"], [b"abcd"]),
        ([b"a", b"", b"bcde", b"f"], [b"abcd", b"ef"]),
        ([b"abcdefghij"], [b"abcd", b"efgh", b"ij"]),
        ([b"ab", b"cd", b"efgh"], [b"abcd", b"efgh"]),
    ],
)
def test_a_stream_is_cut_into_blocks_of_one_size_the_last_never_empty(pieces: list[bytes], blocks: list[bytes]) -> None:
    assert list(in_sizes(pieces, 4)) == blocks
