"""Faults on demand: failures that EC2 has now and then.

`catalogue` has the effects and the fields of each.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import Field, field, fields
from fnmatch import fnmatchcase
from typing import Any, Literal

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.faults.eventual_consistency import HiddenResources
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.state.bounded import Counts, Newest

Effect = Literal[
    "refuse",
    "delay",
    "delay-after",
    "cut-before",
    "cut-after",
    "fail",
    "hang",
    "hide",
    "impair",
    "die",
    "drop-ssh",
    "late-ssh",
    "skew",
    "expire",
]

ASKED_FOR = "A fault that was asked for"
MAX_BOUND = 10_000
"""Limit of bound faults, and of expired keys: the newest are kept."""
CODES: Mapping[str, tuple[int, str]] = {
    "RequestLimitExceeded": (503, "Request limit exceeded."),
    "Throttling": (400, "Rate exceeded"),
    "SlowDown": (503, "Please reduce your request rate."),
    "InternalError": (500, "An internal error has occurred"),
    "InternalFailure": (500, "An internal error has occurred"),
    "Unavailable": (503, "The server is overloaded and can't handle the request."),
    "ServiceUnavailable": (503, "Reduce your request rate."),
    "InsufficientInstanceCapacity": (
        500,
        "We currently do not have sufficient capacity of this type in the Availability Zone you requested.",
    ),
    "UnauthorizedOperation": (403, "You are not authorized to perform this operation."),
    "AccessDenied": (403, "Access Denied"),
}
"""HTTP status and message of codes that are often wanted (EC2 API reference, "Error codes"; S3's "Error responses")."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure to inject, with its conditions."""

    effect: Effect
    action: str = "*"
    """The action, as EC2 names it, or `s3:PutObject` for S3's; a shell pattern."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Parameters that must have these values, such as {"InstanceType": "t3.small"}; shell patterns. S3's actions have
    Bucket and Key.

    A dotted name selects a nested parameter: {"InstanceMarketOptions.MarketType": "spot"}.
    """
    code: str = ""
    message: str = ""
    status: int | None = None
    seconds: float = 0.0
    calls: int | None = None
    """For `hide`: number of calls, in place of `seconds`."""
    after: int = 0
    """Number of matching calls that are let through first."""
    times: int | None = None
    """Number of times that it is injected; unlimited if None."""
    probability: float = 1.0
    """Probability for each further matching call, by a random generator of the fault's own."""

    def matches(self, action: str, params: Mapping[str, Any]) -> bool:
        return fnmatchcase(action, self.action) and all(
            fnmatchcase(_value(params, name), pattern) for name, pattern in self.where.items()
        )

    def error(self) -> AwsError:
        """Make the error of a refused call."""
        code = self.code or "RequestLimitExceeded"
        status, message = CODES.get(code, (503, ASKED_FOR))
        return AwsError(code, self.message or message, status=self.status or status)

    @property
    def reason(self) -> str:
        """Reason that a failed resource states."""
        return self.message or ASKED_FOR

    def words(self) -> str:
        """Describe the fault in one line."""
        parts = [f"{self.effect} {self.action}"]
        parts += [f"where {name} is {pattern}" for name, pattern in self.where.items()]
        parts += [self.code] if self.code else []
        parts += [f"{self.seconds:g} s"] if self.seconds else []
        parts += [f"for {self.calls} calls"] if self.calls else []
        parts += [f"after {self.after}"] if self.after else []
        parts += [f"{self.times} times"] if self.times is not None else []
        parts += [f"probability {self.probability:g}"] if self.probability < 1 else []
        return ", ".join(parts)


def to_json(fault: Fault) -> dict[str, Any]:
    """Convert a fault to JSON, without defaults."""
    return {
        each.name: getattr(fault, each.name)
        for each in fields(Fault)
        if each.name == "effect" or getattr(fault, each.name) != _default(each)
    }


def _default(each: Field[Any]) -> object:
    return {} if each.name == "where" else each.default


def _value(params: Mapping[str, Any], name: str) -> str:
    """Return a parameter's value, empty without one. The subnet can be that of the network interface."""
    found: Any = params
    for part in name.split("."):
        if isinstance(found, list) and part.isdigit():
            found = found[int(part)] if int(part) < len(found) else ""
        else:
            found = found.get(part, "") if isinstance(found, Mapping) else ""
    if name == "SubnetId" and not found:
        return _value(params, "NetworkInterfaces.0.SubnetId") if "NetworkInterfaces" in params else ""
    return str(found)


@dataclass(slots=True)
class _ActiveFault:
    """An active fault, with its counts of matching calls and of injections."""

    fault: Fault
    die: random.Random
    """A random generator for this fault alone, so that its tenth decision depends only on the seed."""
    met: int = 0
    hits: int = 0

    @property
    def is_spent(self) -> bool:
        return self.fault.times is not None and self.hits >= self.fault.times

    def fires(self) -> bool:
        """Count a matching call, and tell if the fault is injected into it."""
        self.met += 1
        if self.met <= self.fault.after or self.is_spent:
            return False
        if self.fault.probability < 1 and self.die.random() >= self.fault.probability:
            return False
        self.hits += 1
        return True


class Faults:
    """Active faults, and those already bound to a resource."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self.hidden = HiddenResources()
        self._lock = threading.Lock()
        self._seed = seed
        self._number = 0
        self._active: list[_ActiveFault] = []
        self._bound: Newest[str, list[Fault]] = Newest(MAX_BOUND)
        self._expired: Newest[str, None] = Newest(MAX_BOUND)
        self._injected = Counts(MAX_BOUND)
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._number += 1
            self._active.append(_ActiveFault(fault, random.Random(f"{self._seed}/{self._number}")))  # noqa: S311

    def replace(self, faults: Iterable[Fault], *, seed: int) -> None:
        """Replace all active faults, with generators of this seed."""
        self.clear()
        self._seed, self._number = seed, 0
        for fault in faults:
            self.add(fault)

    def clear(self) -> None:
        """Remove all faults, those bound to resources too; expired credentials are valid again."""
        with self._lock:
            self._active.clear()
            self._bound.clear()
            self._expired.clear()
        self.hidden.clear()

    def listed(self) -> list[tuple[Fault, int]]:
        """List the faults that may still come, with the number of times that each was injected."""
        with self._lock:
            return [(each.fault, each.hits) for each in self._active if not each.is_spent]

    def injected(self) -> dict[str, int]:
        """Count the faults injected since the process began, by effect and action: `refuse RunInstances`."""
        with self._lock:
            return dict(sorted(self._injected.items()))

    def take(self, effect: Effect, action: str, params: Mapping[str, Any]) -> Fault | None:
        """Return the first fault with this effect that is to be injected into the call."""
        with self._lock:
            for each in self._active:
                if each.fault.effect == effect and each.fault.matches(action, params) and each.fires():
                    self._injected.add(f"{effect} {action}")
                    if each.is_spent:
                        self._active.remove(each)
                    return each.fault
        return None

    def bind(self, thing: str, action: str, params: Mapping[str, Any], *effects: Effect) -> None:
        """Bind the faults that match the call to a resource that it makes; they take effect later."""
        for effect in effects:
            fault = self.take(effect, action, params)
            if fault is not None:
                with self._lock:
                    self._bound.setdefault(thing, []).append(fault)

    def bound(self, thing: str, effect: Effect) -> Fault | None:
        """Return the fault of this effect that is bound to a resource."""
        with self._lock:
            return next((fault for fault in self._bound.get(thing, ()) if fault.effect == effect), None)

    def expire(self, access_key_id: str, action: str, params: Mapping[str, Any]) -> bool:
        """Tell if the caller's key has expired; a fault expires it from this call on."""
        with self._lock:
            if access_key_id in self._expired:
                return True
        if self.take("expire", action, params) is None:
            return False
        with self._lock:
            self._expired[access_key_id] = None
        return True
