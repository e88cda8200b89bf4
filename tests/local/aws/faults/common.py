"""Faults that several tests set."""

from __future__ import annotations

from imagepipe.local.aws.faults.faults import Fault


def no_capacity(*instance_types: str, times: int | None = None, subnet: str = "*", market: str = "*") -> list[Fault]:
    """EC2 has none of these instance types left; in one subnet, or on the market `spot`, if that is said."""
    return [
        Fault(
            effect="refuse",
            action="RunInstances",
            where={"InstanceType": kind, "SubnetId": subnet, "InstanceMarketOptions.MarketType": market},
            code="InsufficientInstanceCapacity",
            message=f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested.",
            times=times,
        )
        for kind in instance_types
    ]


def throttled(action: str = "*", *, times: int) -> Fault:
    """So many calls are refused for being too many."""
    return Fault(effect="refuse", action=action, code="RequestLimitExceeded", times=times)


def slow_down(operation: str = "*", *, times: int, key: str = "*") -> Fault:
    """So many of S3's calls, for these keys, are refused for being too many."""
    return Fault(effect="refuse", action=f"s3:{operation}", where={"Key": key}, code="SlowDown", times=times)
