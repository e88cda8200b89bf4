"""Count the calls, for tests of a client's cost; keep the decisions of policies, for tests of policies."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.local.aws.state.bounded import Counts, Newest

MAX_ACTIONS = 2000  # EC2, S3 and the others have some 1,500; made-up names are counted too
MAX_REQUESTS = 10_000


class Calls:
    """Counts since the cloud's process began, or since they were last cleared; refused calls are calls too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts(MAX_ACTIONS)

    def add(self, service: str, action: str) -> None:
        """Count one call."""
        with self._lock:
            self._counts.add(f"{service}:{action}" if action else service)

    def counted(self) -> Mapping[str, int]:
        """Return the counts by name, such as `ec2:DescribeInstances`."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def clear(self) -> None:
        with self._lock:
            self._counts.clear()


class Evaluations:
    """The authorization requests that policies decided since the process began, or since they were cleared.

    Each is kept once; the newest 10,000 of them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decisions: Newest[str, bool] = Newest(MAX_REQUESTS)

    def add(self, request: AuthorizationRequest, *, is_allowed: bool) -> None:
        """Keep one decision."""
        values = {"action": request.action, "resource": request.resource, "context": request.context}
        with self._lock:
            self._decisions[json.dumps(values, sort_keys=True)] = is_allowed

    def listed(self) -> list[dict[str, Any]]:
        """List them, each with `action`, `resource`, `context`, and whether it was `allowed`."""
        with self._lock:
            return [{**json.loads(text), "allowed": allowed} for text, allowed in self._decisions.items()]

    def clear(self) -> None:
        with self._lock:
            self._decisions.clear()
