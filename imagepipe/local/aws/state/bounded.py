"""Collections with a limit: a process that serves for weeks must not grow with each request."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
OTHERS = "others"


class Newest(OrderedDict[K, V]):
    """A map of the newest entries: beyond the limit, the oldest are dropped."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > self._most:
            self.popitem(last=False)


class Counts(dict[str, int]):
    """Counts by name; names after so many are counted together, as `others`."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def add(self, name: str) -> None:
        """Count one more."""
        if name not in self and len(self) >= self._most:
            name = OTHERS
        self[name] = self.get(name, 0) + 1
