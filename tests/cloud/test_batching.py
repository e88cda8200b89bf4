from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from imagepipe.cloud.batching import BatchedChange, BatchedLookup
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


class Machines:
    """Changes that EC2 refuses as a whole if one of the resources is missing. It holds its first answer back."""

    def __init__(self, code: str = "InvalidInstanceID.NotFound") -> None:
        self.calls: list[list[str]] = []
        self.is_asked = threading.Event()
        self.goes_on = threading.Event()
        self._code = code

    def change(self, ids: Sequence[str]) -> None:
        self.calls.append(sorted(ids))
        self.is_asked.set()
        assert self.goes_on.wait(10)
        if "gone" in ids:
            raise CloudError(f"changing {', '.join(sorted(ids))}", code=self._code)

    def change_together(self, first: str, *others: str) -> list[str]:
        """Change the others while the call for the first one is under way; return each one's error."""
        together = BatchedChange(self.change)

        def make(id: str) -> str:
            try:
                together.make(id)
            except CloudError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(20) as pool:
            made = [pool.submit(make, first)]
            assert self.is_asked.wait(10)
            made += [pool.submit(make, id) for id in others]
            while len(together._together._waiting) < len(others):
                threading.Event().wait(0.001)
            self.goes_on.set()
            return [each.result(10) for each in made]


def test_changes_that_are_asked_for_during_a_call_share_the_next() -> None:
    machines = Machines()
    assert machines.change_together("a", "b", "c") == ["", "", ""]
    assert machines.calls == [["a"], ["b", "c"]]


def test_a_refused_resource_does_not_keep_others_from_their_change_and_fails_for_its_own_caller_alone() -> None:
    machines = Machines()
    assert machines.change_together("a", "b", "gone", "c") == ["", "", "changing gone", ""]
    assert machines.calls[1] == ["b", "c", "gone"]
    assert sorted(machines.calls[2:]) == [["b"], ["c"], ["gone"]]


def test_throttled_changes_are_not_repeated_one_by_one() -> None:
    machines = Machines("RequestLimitExceeded")
    assert machines.change_together("a", "b", "gone") == ["", "changing b, gone", "changing b, gone"]
    assert machines.calls == [["a"], ["b", "gone"]]
