from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagepipe.cloud.batching import BatchedLookup
from imagepipe.errors import CloudError


class Names:
    """Answers from a table, holds its first answer back, and counts."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.is_asked = threading.Event()
        self.goes_on = threading.Event()

    def ask(self, names: Sequence[str]) -> Mapping[str, str]:
        self.calls.append(sorted(names))
        self.is_asked.set()
        assert self.goes_on.wait(10)
        if "bad" in names:
            raise CloudError("throttled", code="RequestLimitExceeded")
        return {name: name.upper() for name in names if name != "none"}


def _ask_all(names: Names, together: BatchedLookup[str, str], first: str, *others: str) -> list[str | None]:
    """Ask for the others while the call for the first one is under way."""
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(together.look_up, first)]
        assert names.is_asked.wait(10)
        answers += [pool.submit(together.look_up, name) for name in others]
        while len(together._waiting) < len(set(others)):
            threading.Event().wait(0.001)
        names.goes_on.set()
        return [answer.result(10) for answer in answers]


def test_who_asks_while_a_call_is_under_way_shares_the_next() -> None:
    names = Names()
    answers = _ask_all(names, BatchedLookup(names.ask), "a", "b", "c", "b", "none")
    assert answers == ["A", "B", "C", "B", None]
    assert names.calls == [["a"], ["b", "c", "none"]]


def test_nothing_is_remembered() -> None:
    names = Names()
    names.goes_on.set()
    together = BatchedLookup(names.ask)
    assert [together.look_up("a"), together.look_up("a")] == ["A", "A"]
    assert names.calls == [["a"], ["a"]]


def test_an_error_is_raised_to_all_who_asked_together_and_to_nobody_else() -> None:
    names = Names()
    together = BatchedLookup(names.ask)
    with pytest.raises(CloudError, match="throttled"):
        _ask_all(names, together, "a", "bad", "b")
    assert together.look_up("c") == "C"
