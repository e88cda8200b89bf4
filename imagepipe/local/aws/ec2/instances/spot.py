"""The spot market: the options of a launch, and the limits of spot instances."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Instance

PRICE = Decimal("0.0038")
"""Price of an hour of any instance type, in dollars; lower offers are refused."""
CANCELLED = "cancelled"
RECLAIMED = "Server.SpotInstanceTermination"
"""Reason of an instance that EC2 took back."""
VALID_FOR = timedelta(days=7)  # API reference, RequestSpotInstances, ValidUntil: "7 days from the current date"


def market(params: Mapping[str, Any]) -> str | None:
    """Return `one-time` or `persistent` for a launch on the spot market, None for one on demand. Raises AwsError."""
    options = params.get("InstanceMarketOptions", {})
    kind = options.get("MarketType")
    if kind is None:
        if options.get("SpotOptions"):
            raise conflicting("SpotOptions need the MarketType spot")
        return None
    if kind != "spot":
        raise invalid(f"Value ({kind}) for parameter marketType is invalid.")
    wanted = options.get("SpotOptions", {})
    request = str(wanted.get("SpotInstanceType", "one-time"))
    behavior = wanted.get("InstanceInterruptionBehavior", "terminate")
    if request not in ("one-time", "persistent"):
        raise invalid(f"Value ({request}) for parameter spotInstanceType is invalid.")
    if behavior not in ("terminate", "stop", "hibernate"):
        raise invalid(f"Value ({behavior}) for parameter instanceInterruptionBehavior is invalid.")
    if behavior != "terminate" and request == "one-time":
        raise conflicting(f"The interruption behavior {behavior} needs a persistent Spot Instance request")
    _check_price(wanted.get("MaxPrice"))
    return request


def _check_price(text: object) -> None:
    if text is None:
        return
    try:
        price = Decimal(str(text))
    except InvalidOperation:
        price = Decimal(0)
    if price <= 0:
        raise invalid(f"Value ({text}) for parameter price is invalid. It is a price in dollars")
    if price < PRICE:
        raise AwsError(
            "SpotMaxPriceTooLow",
            f"Your Spot request price of {price} is lower than the minimum required Spot request fulfillment "
            f"price of {PRICE}.",
        )


def new_request_id() -> str:
    return f"sir-{secrets.token_hex(4)}"


def check_stop(instance: Instance) -> None:
    """Raise AwsError unless the instance may be stopped (EC2 user guide, "Manage your Spot Instances")."""
    if instance.is_spot and instance.spot_type != "persistent":
        raise AwsError(
            "UnsupportedOperation",
            f"You can't stop the Spot Instance '{instance.id}' because it is associated with a one-time Spot "
            "Instance request. You can only stop Spot Instances associated with persistent Spot Instance requests.",
        )


def request_state(instance: Instance) -> str:
    """Return the state of the instance's spot request."""
    if instance.spot_type == CANCELLED:
        return "cancelled"
    if instance.state == "stopped":
        return "disabled"
    return "closed" if instance.state in ("shutting-down", "terminated") else "active"


@dataclass(frozen=True, slots=True)
class _Request:
    """The request behind a spot instance."""

    instance: Instance

    @property
    def id(self) -> str:
        return str(self.instance.spot_request_id)

    @property
    def tags(self) -> Mapping[str, str]:
        return self.instance.spot_tags


GETTERS: Mapping[str, Getter] = {
    "instance-id": lambda row: row.instance.id,
    "spot-instance-request-id": lambda row: row.id,
    "state": lambda row: request_state(row.instance),
}


def describe_spot_instance_requests(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe the requests behind this account's spot instances."""
    rows = [_Request(row) for row in _requests(backend, call)]
    getters = AnswerFilters("DescribeSpotInstanceRequests", partial(_to_api, backend), GETTERS)
    shown, token = filters.page(rows, call.params, getters, ids="SpotInstanceRequestIds")
    return {"SpotInstanceRequests": [_to_api(backend, row) for row in shown], "NextToken": token}


def _requests(backend: Backend, call: Call) -> list[Instance]:
    rows = [row for row in backend.database.instances.owned(call.account, call.region) if row.spot_request_id]
    wanted = call.params.get("SpotInstanceRequestIds", [])
    unknown = set(wanted) - {row.spot_request_id for row in rows}
    if unknown:
        raise AwsError(
            "InvalidSpotInstanceRequestID.NotFound",
            f"The spot instance request ID '{sorted(unknown)[0]}' does not exist",
        )
    return [row for row in rows if row.spot_request_id in wanted] if wanted else rows


def _status(instance: Instance) -> dict[str, str]:
    """Describe the status of a request (EC2 user guide, "Get the status of a Spot Instance request")."""
    ended = instance.state in ("shutting-down", "terminated")
    if instance.spot_type == CANCELLED and not ended:
        code = "request-canceled-and-instance-running"
        return {"Code": code, "Message": "Your Spot request is canceled, but your instance is still running."}
    if ended:
        cause = "no-capacity" if instance.reason_code == RECLAIMED else "by-user"
        return {"Code": f"instance-terminated-{cause}", "Message": "Your Spot instance was terminated."}
    return {"Code": "fulfilled", "Message": "Your Spot request is fulfilled."}


def _to_api(backend: Backend, request: _Request) -> dict[str, Any]:
    row = request.instance
    groups = (backend.database.groups.get(group_id) for group_id in row.group_ids)
    return {
        "SpotInstanceRequestId": row.spot_request_id,
        "InstanceId": row.id,
        "InstanceInterruptionBehavior": "terminate",
        "State": request_state(row),
        "Status": {**_status(row), "UpdateTime": row.launch_time},
        "Type": row.spot_type if row.spot_type != CANCELLED else "one-time",
        "CreateTime": row.launch_time,
        "ValidUntil": row.launch_time + VALID_FOR,
        "LaunchedAvailabilityZone": row.zone,
        "LaunchSpecification": {
            "ImageId": row.image_id,
            "InstanceType": row.instance_type,
            "KeyName": row.key_name,
            "Monitoring": {"Enabled": row.monitoring},
            "Placement": {"AvailabilityZone": row.zone},
            "SecurityGroups": [{"GroupId": group.id, "GroupName": group.name} for group in groups if group],
            "SubnetId": row.subnet_id,
        },
        "ProductDescription": row.platform_details,
        "SpotPrice": f"{PRICE}",
        "Tags": tagging.if_any(row.spot_tags),
    }


def cancel_spot_instance_requests(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Cancel requests; the instances keep running, as on EC2."""
    rows = _requests(backend, call)
    for row in rows:
        backend.database.put(replace(row, spot_type=CANCELLED))
    return {
        "CancelledSpotInstanceRequests": [
            {"SpotInstanceRequestId": row.spot_request_id, "State": "cancelled"} for row in rows
        ]
    }
