"""Instance types, their offerings in a region, and the CPU credits of burstable instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances.describe import requested
from imagepipe.local.aws.moto.catalogue import instance_type, offerings
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters, Described
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Instance

MAX_TYPES_PAGE = 100
CREDITS = ("standard", "unlimited")


def describe_instance_types(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe the types that the region offers, or those that the request names."""
    names = call.params.get("InstanceTypes", [])
    offered = {str(offering["InstanceType"]) for offering in offerings("region", call.region)}
    if unknown := sorted(set(names) - offered):
        text = f"The following supplied instance types do not exist: [{', '.join(unknown)}]"
        raise AwsError("InvalidInstanceType", text)
    rows = [Described(name, described) for name in sorted(names or offered) if (described := instance_type(name))]
    getters = AnswerFilters[Described]("DescribeInstanceTypes", lambda row: row.value)
    shown, token = filters.page(rows, call.params, getters, most=MAX_TYPES_PAGE, ids="InstanceTypes")
    return {"InstanceTypes": [row.value for row in shown], "NextToken": token}


def describe_instance_type_offerings(backend: Backend, call: Call) -> Mapping[str, Any]:
    kind = str(call.params.get("LocationType") or "region")
    if kind not in ("region", "availability-zone", "availability-zone-id"):
        raise invalid(f"Value ({kind}) for parameter locationType is invalid.")
    rows = [Described(f"{each['InstanceType']} {each['Location']}", each) for each in offerings(kind, call.region)]
    getters = AnswerFilters[Described]("DescribeInstanceTypeOfferings", lambda row: row.value)
    shown, token = filters.page(rows, call.params, getters)
    return {"InstanceTypeOfferings": [row.value for row in shown], "NextToken": token}


def cpu_credits(kind: str, asked: str | None) -> str:
    """Return the credit option of a launch; empty for a type that is not burstable. Raises AwsError.

    T2 is `standard` by default, the others `unlimited` (EC2 user guide, "Unlimited mode for burstable performance
    instances").
    """
    if asked is not None and asked not in CREDITS:
        raise invalid(f"Value ({asked}) for parameter cpuCredits is invalid.")
    if not (instance_type(kind) or {}).get("BurstablePerformanceSupported"):
        if asked == "unlimited":
            raise AwsError("InvalidParameterCombination", f"The instance type '{kind}' is not burstable.")
        return ""
    return asked or ("standard" if kind.startswith("t2.") else "unlimited")


GETTERS: Mapping[str, Getter] = {"instance-id": lambda row: row.id}


def describe_instance_credit_specifications(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe the burstable instances; without ids, those that are `unlimited` (EC2 API reference)."""
    rows = [row for row in requested(backend, call) if row.cpu_credits and row.state != "terminated"]
    if not call.params.get("InstanceIds") and not call.params.get("Filters"):
        rows = [row for row in rows if row.cpu_credits == "unlimited"]
    getters = AnswerFilters("DescribeInstanceCreditSpecifications", _credits, GETTERS)
    shown, token = filters.page(rows, call.params, getters, ids="InstanceIds")
    return {"InstanceCreditSpecifications": [_credits(row) for row in shown], "NextToken": token}


def _credits(row: Instance) -> dict[str, Any]:
    return {"InstanceId": row.id, "CpuCredits": row.cpu_credits}


def modify_instance_credit_specification(backend: Backend, call: Call) -> Mapping[str, Any]:
    done = []
    for wanted in call.params["InstanceCreditSpecifications"]:
        row = lookup.instance(backend, call, str(wanted.get("InstanceId", "")))
        value = cpu_credits(row.instance_type, wanted.get("CpuCredits"))
        backend.database.put(replace(row, cpu_credits=value))
        done.append({"InstanceId": row.id})
    return {"SuccessfulInstanceCreditSpecifications": done, "UnsuccessfulInstanceCreditSpecifications": []}
