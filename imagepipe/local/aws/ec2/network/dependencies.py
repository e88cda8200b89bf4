"""Instances and groups in a VPC or subnet. moto keeps the networks and does not know them."""

from __future__ import annotations

from collections.abc import Mapping

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call


def check_unused(backend: Backend, call: Call, values: Mapping[str, str]) -> None:
    """Raise AwsError if the call deletes a network that is in use."""
    database = backend.database
    living = [row for row in database.instances.owned(call.account, call.region) if row.state != "terminated"]
    if call.action == "DeleteSubnet":
        name = values.get("SubnetId", "")
        is_used = any(row.subnet_id == name for row in living)
    elif call.action == "DeleteVpc":
        name = values.get("VpcId", "")
        groups = [row for row in database.groups.owned(call.account, call.region) if row.vpc_id == name]
        is_used = any(row.vpc_id == name for row in living) or any(row.name != "default" for row in groups)
    else:
        return
    if is_used:
        raise AwsError("DependencyViolation", f"The {name} has dependencies and cannot be deleted.")
