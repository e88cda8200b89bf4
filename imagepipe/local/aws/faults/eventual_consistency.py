"""Hide new resources for a while, as EC2 does at times (EC2 API guide, "Eventual consistency")."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.moto.refusals import REFUSALS, unknown_id
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.ids import MALFORMED, not_found
from imagepipe.local.aws.state.bounded import Newest

if TYPE_CHECKING:
    from imagepipe.local.aws.protocol.query import Call

MAX_HIDDEN = 10_000
ROWS = {
    "Instances": "InstanceId",
    "Images": "ImageId",
    "Snapshots": "SnapshotId",
    "Volumes": "VolumeId",
    "SecurityGroups": "GroupId",
    "KeyPairs": "KeyPairId",
    "ImageUsageReports": "ReportId",
    "ImageUsageReportEntries": "ReportId",
    "Tags": "ResourceId",
}
"""The field that identifies a row, by the name of the list in the answer."""
NAMES = ("InstanceId", "ImageId", "SnapshotId", "VolumeId", "GroupId", "KeyPairId", "KeyName", "ReportId")
NO_NAMES = frozenset({"Filters", "TagSpecifications", "Tags", "ClientToken", "Description", "Name"})
"""Parameters whose values do not refer to existing resources."""


@dataclass(slots=True)
class _Hidden:
    until: float | None
    """Time by the monotonic clock; None if `calls` is the limit."""
    calls: int

    def is_over(self) -> bool:
        return time.monotonic() >= self.until if self.until is not None else self.calls <= 0


class HiddenResources:
    """The hidden resources."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hidden: Newest[str, _Hidden] = Newest(MAX_HIDDEN)

    def hide(self, answer: Mapping[str, Any], *, seconds: float, calls: int | None) -> None:
        """Hide the resources that this answer names for a while."""
        until = time.monotonic() + seconds if calls is None else None
        with self._lock:
            for name in [name for name, hidden in self._hidden.items() if hidden.is_over()]:
                del self._hidden[name]
            for name in _made(answer):
                self._hidden[name] = _Hidden(until, calls or 0)

    def clear(self) -> None:
        with self._lock:
            self._hidden.clear()

    def refuse(self, call: Call) -> None:
        """Raise AwsError for a call that names a hidden resource."""
        if not self._hidden:
            return
        for name in _texts({key: value for key, value in call.params.items() if key not in NO_NAMES}):
            if self._hides(name):
                prefix = name.partition("-")[0]
                if prefix in MALFORMED:
                    raise not_found(prefix, [name])
                if prefix in REFUSALS:
                    raise unknown_id(name)
                raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")

    def without(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer of a Describe without hidden resources."""
        if not self._hidden:
            return answer
        shown: dict[str, Any] = {}
        for key, value in answer.items():
            if key == "Reservations":
                parts = [part | self.without({"Instances": part["Instances"]}) for part in value]
                shown[key] = [part for part in parts if part["Instances"]]
            elif key in ROWS and isinstance(value, Sequence):
                shown[key] = [row for row in value if not self._hides(str(row.get(ROWS[key], "")))]
            else:
                shown[key] = value
        return shown

    def _hides(self, name: str) -> bool:
        """Tell if the resource is hidden, and count the call."""
        with self._lock:
            hidden = self._hidden.get(name)
            if hidden is None:
                return False
            if hidden.is_over():
                del self._hidden[name]
                return False
            hidden.calls -= 1
            return True


def _made(answer: Mapping[str, Any]) -> Iterator[str]:
    yield from (str(answer[name]) for name in NAMES if answer.get(name))
    for rows, name in ROWS.items():
        if rows != "Tags":
            yield from (str(row[name]) for row in answer.get(rows, ()) if name in row)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
