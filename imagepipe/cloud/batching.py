"""Look-ups of many builds in few calls: who asks while a call is under way shares the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class BatchedLookup(Generic[K, V]):
    """One kind of look-up. Nothing is remembered: every answer was asked for after its question came."""

    def __init__(self, ask: Callable[[Sequence[K]], Mapping[K, V]]) -> None:
        """`ask` looks several things up at once; what it does not find, it leaves out."""
        self._ask = ask
        self._lock = threading.Lock()
        self._waiting: dict[K, Future[V | None]] = {}
        self._is_asking = False

    def look_up(self, key: K) -> V | None:
        """What there is of one thing; None if there is nothing. Raises what `ask` raises."""
        with self._lock:
            answer = self._waiting.setdefault(key, Future())
            leads = not self._is_asking
            self._is_asking = True
        if leads:
            self._lead()
        return answer.result()

    def _lead(self) -> None:
        """Ask for all who wait, until nobody does: at most a few times, as each stage asks once."""
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, {}
                self._is_asking = bool(batch)
            if not batch:
                return
            try:
                found = self._ask(list(batch))
            except BaseException as error:  # noqa: BLE001 - it is raised to everybody who waits
                for answer in batch.values():
                    answer.set_exception(error)
            else:
                for key, answer in batch.items():
                    answer.set_result(found.get(key))
