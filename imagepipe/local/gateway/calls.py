"""How often each action was called, by whoever counts what a client costs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class Calls:
    """Counts since the cloud's process began, or since they were last cleared; refused calls are calls too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, service: str, action: str) -> None:
        """One more."""
        with self._lock:
            self._counts[f"{service}:{action}" if action else service] += 1

    def counted(self) -> Mapping[str, int]:
        """By `ec2:DescribeInstances`."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def clear(self) -> None:
        with self._lock:
            self._counts.clear()
