"""Faults on demand: what goes wrong on EC2 now and then, and here when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from imagepipe.local.gateway.refusal import Refused

Effect = Literal["refuse", "delay", "delay-after", "cut-before", "cut-after", "fail", "impair"]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that shall go wrong, and when."""

    effect: Effect
    """`cut-*` closes the connection before or after the action's effect, `delay-after` holds back the answer; `fail`
    makes an image go to failed, `impair` an instance fail its status checks."""
    action: str = "*"
    """The action, as EC2 names it, or `s3:PutObject` for S3's; a shell pattern."""
    where: Mapping[str, str] = field(default_factory=dict)
    """Parameters that must have these values, such as {"InstanceType": "t3.small"}; shell patterns. S3's actions have
    Bucket and Key.

    A name with dots goes down: {"InstanceMarketOptions.MarketType": "spot"}.
    """
    code: str = "RequestLimitExceeded"
    message: str = "A fault that was asked for"
    status: int = 503
    seconds: float = 0.0
    times: int | None = None
    """How often; for ever if None."""

    def hits(self, action: str, params: Mapping[str, Any]) -> bool:
        return fnmatchcase(action, self.action) and all(
            fnmatchcase(_value(params, name), pattern) for name, pattern in self.where.items()
        )


def _value(params: Mapping[str, Any], name: str) -> str:
    """A parameter's value, empty if it is not there. The subnet is the interface's, where that names one."""
    found: Any = params
    for part in name.split("."):
        if isinstance(found, list) and part.isdigit():
            found = found[int(part)] if int(part) < len(found) else ""
        else:
            found = found.get(part, "") if isinstance(found, Mapping) else ""
    if name == "SubnetId" and not found:
        return _value(params, "NetworkInterfaces.0.SubnetId") if "NetworkInterfaces" in params else ""
    return str(found)


def no_capacity(*instance_types: str, times: int | None = None, subnet: str = "*", market: str = "*") -> list[Fault]:
    """EC2 has none of these instance types left; in one subnet, or on the market `spot`, if that is said."""
    return [
        Fault(
            effect="refuse",
            action="RunInstances",
            where={"InstanceType": kind, "SubnetId": subnet, "InstanceMarketOptions.MarketType": market},
            code="InsufficientInstanceCapacity",
            message=f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested.",
            status=500,
            times=times,
        )
        for kind in instance_types
    ]


def throttled(action: str = "*", *, times: int) -> Fault:
    """So many calls are refused for being too many."""
    return Fault(
        effect="refuse", action=action, code="RequestLimitExceeded", message="Request limit exceeded.", times=times
    )


def slow_down(operation: str = "*", *, times: int, key: str = "*") -> Fault:
    """So many of S3's calls, for these keys, are refused for being too many."""
    return Fault(
        effect="refuse",
        action=f"s3:{operation}",
        where={"Key": key},
        code="SlowDown",
        message="Please reduce your request rate.",
        times=times,
    )


class Faults:
    """The faults that are set now."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._set = list(faults)

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._set.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._set.clear()

    def listed(self) -> list[Fault]:
        with self._lock:
            return list(self._set)

    def take(self, effect: Effect, action: str, params: Mapping[str, Any]) -> Fault | None:
        """The first fault with this effect that the call meets, used up by one; None if there is none."""
        with self._lock:
            for place, fault in enumerate(self._set):
                if fault.effect != effect or not fault.hits(action, params):
                    continue
                if fault.times is not None:
                    if fault.times <= 1:
                        del self._set[place]
                    else:
                        self._set[place] = replace(fault, times=fault.times - 1)
                return fault
        return None

    def refuse(self, action: str, params: Mapping[str, Any]) -> None:
        """Raise what the call shall be refused with, if anything."""
        fault = self.take("refuse", action, params)
        if fault is not None:
            raise Refused(fault.code, fault.message, status=fault.status)


def fault_of(described: Mapping[str, Any]) -> Fault:
    """A fault from its JSON. Raises Refused for one that cannot be."""
    try:
        fault = Fault(**described)
    except TypeError as error:
        raise Refused("InvalidParameterValue", f"no such fault: {error}") from error
    if fault.effect not in get_args(Effect):
        raise Refused("InvalidParameterValue", f"no such fault: effect {fault.effect!r}")
    return fault
