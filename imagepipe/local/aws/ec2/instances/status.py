"""Status checks and console output of instances."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances.describe import CODES, OPERATOR, requested, state_of
from imagepipe.local.aws.moto.catalogue import zone_id
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.protocol.times import whole_second
from imagepipe.local.aws.state.records import Instance

GETTERS: Mapping[str, Getter] = {
    "availability-zone": lambda row: row.zone,
    "instance-state-code": lambda row: CODES[row.state],
    "instance-state-name": lambda row: row.state,
}


def describe_instance_status(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = requested(backend, call)
    if not call.params.get("IncludeAllInstances"):
        rows = [row for row in rows if row.state == "running"]
    getters = AnswerFilters("DescribeInstanceStatus", partial(_status, backend), GETTERS)
    shown, token = filters.page(rows, call.params, getters, ids="InstanceIds")
    return {"InstanceStatuses": [_status(backend, row) for row in shown], "NextToken": token}


def _status(backend: Backend, row: Instance) -> dict[str, Any]:
    """Describe both status checks, which are passed while the machine runs."""
    word, details = "not-applicable", []
    if row.state == "running":
        is_well = not row.is_impaired and row.id in backend.driver.running()
        word = "ok" if is_well else "impaired"
        details = [{"Name": "reachability", "Status": "passed" if is_well else "failed"}]
    return {
        "InstanceId": row.id,
        "AvailabilityZone": row.zone,
        "AvailabilityZoneId": zone_id(row.zone),
        "InstanceState": state_of(row.state),
        "Operator": OPERATOR,
        "InstanceStatus": {"Status": word, "Details": details},
        "SystemStatus": {"Status": word, "Details": details},
    }


def get_password_data(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Answer without a password: only Windows has one."""
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    return {"InstanceId": instance.id, "PasswordData": "", "Timestamp": whole_second(backend.clock.now())}


def get_console_output(backend: Backend, call: Call) -> Mapping[str, Any]:
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    return {
        "InstanceId": instance.id,
        "Output": base64.b64encode(backend.driver.console(instance.id)).decode(),
        "Timestamp": whole_second(backend.clock.now()),
    }
