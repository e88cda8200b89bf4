"""Look-ups and changes of many builds in few calls: requests that arrive during a call share the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from imagepipe.cloud.errors import THROTTLING
from imagepipe.errors import CloudError

K = TypeVar("K")
V = TypeVar("V")


class BatchedLookup(Generic[K, V]):
    """One kind of look-up. Nothing is cached: every answer is newer than its request."""

    def __init__(self, ask: Callable[[Sequence[K]], Mapping[K, V]]) -> None:
        """`ask` looks several keys up at once, and leaves out those that it does not find."""
        self._ask = ask
        self._lock = threading.Lock()
        self._waiting: dict[K, Future[V | None]] = {}
        self._is_asking = False

    def look_up(self, key: K) -> V | None:
        """Return the result for one key; None if it was not found. Exceptions of `ask` are passed on."""
        with self._lock:
            answer = self._waiting.setdefault(key, Future())
            leads = not self._is_asking
            self._is_asking = True
        if leads:
            self._lead()
        return answer.result()

    def _lead(self) -> None:
        """Answer all waiting requests, until none is left. It takes only a few rounds: each stage asks once."""
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, {}
                self._is_asking = bool(batch)
            if not batch:
                return
            try:
                found = self._ask(list(batch))
            except BaseException as error:  # noqa: BLE001 - raised to every waiting caller
                for answer in batch.values():
                    answer.set_exception(error)
            else:
                for key, answer in batch.items():
                    answer.set_result(found.get(key))


class BatchedChange(Generic[K]):
    """One kind of change that a call can make to many resources, and that may be made twice."""

    def __init__(self, change: Callable[[Sequence[K]], None]) -> None:
        """`change` changes several resources at once. It must fail if one of several is missing."""
        self._change = change
        self._together: BatchedLookup[K, CloudError] = BatchedLookup(self._failures)

    def make(self, key: K) -> None:
        """Change one resource. Raises CloudError for a reason of its own, not for that of another resource."""
        failure = self._together.look_up(key)
        if failure is not None:
            raise failure

    def _failures(self, keys: Sequence[K]) -> dict[K, CloudError]:
        """Change the resources, and return the errors of those that were not changed.

        EC2 refuses a whole call for one resource, so then each gets a call of its own.
        """
        try:
            self._change(keys)
        except CloudError as error:
            if len(keys) == 1 or error.code in THROTTLING:
                return dict.fromkeys(keys, error)
        else:
            return {}
        failures: dict[K, CloudError] = {}
        for key in keys:
            failures |= self._failures([key])
        return failures
