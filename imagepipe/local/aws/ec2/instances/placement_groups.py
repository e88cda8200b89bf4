"""Placement groups. They are kept and described; where a machine runs does not change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import PlacementGroup

STRATEGIES = ("cluster", "spread", "partition")
MAX_PARTITIONS = 7  # EC2 user guide, "Placement strategies": for each Availability Zone


def create_placement_group(backend: Backend, call: Call) -> Mapping[str, Any]:
    name, strategy = call.text("GroupName"), str(call.params.get("Strategy") or "cluster")
    partitions = call.params.get("PartitionCount")
    if strategy not in STRATEGIES:
        raise invalid(f"Value ({strategy}) for parameter strategy is invalid.")
    if partitions is not None and strategy != "partition":
        raise conflicting("The parameter partitionCount is for groups of the strategy partition")
    if not 1 <= int(partitions or 1) <= MAX_PARTITIONS:
        raise invalid(f"Value ({partitions}) for parameter partitionCount is invalid.")
    if _find(backend, call, name) is not None:
        raise AwsError("InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists.")
    group = PlacementGroup(
        id=new_id("pg"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(call.params, "placement-group")["placement-group"],
        name=name,
        strategy=strategy,
        partitions=int(partitions or 2) if strategy == "partition" else None,
        spread_level=str(call.params.get("SpreadLevel") or "rack") if strategy == "spread" else None,
    )
    backend.database.put(group)
    return {"PlacementGroup": _to_api(group)}


def delete_placement_group(backend: Backend, call: Call) -> Mapping[str, Any]:
    group = check_exists(backend, call, call.text("GroupName"))
    for row in backend.database.instances.owned(call.account, call.region):
        if row.placement_group == group.name and row.state != "terminated":
            text = f"The placement group '{group.name}' is in use and may not be deleted."
            raise AwsError("InvalidPlacementGroup.InUse", text)
    backend.database.remove(group)
    return {}


def describe_placement_groups(backend: Backend, call: Call) -> Mapping[str, Any]:
    names = [check_exists(backend, call, name).name for name in call.params.get("GroupNames", [])]
    ids = call.params.get("GroupIds", [])
    rows = backend.database.placement_groups.owned(call.account, call.region)
    for identifier in ids:
        if all(row.id != identifier for row in rows):
            text = f"The placement group ID '{identifier}' does not exist."
            raise AwsError("InvalidPlacementGroupId.NotFound", text)
    rows = [row for row in rows if not (names or ids) or row.name in names or row.id in ids]
    getters = AnswerFilters("DescribePlacementGroups", _to_api)
    return {"PlacementGroups": [_to_api(row) for row in filters.select(rows, call.filters(), getters)]}


def check_exists(backend: Backend, call: Call, name: str) -> PlacementGroup:
    """Find the group of this name. Raises AwsError."""
    group = _find(backend, call, name)
    if group is None:
        raise AwsError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
    return group


def _find(backend: Backend, call: Call, name: str) -> PlacementGroup | None:
    rows = backend.database.placement_groups.owned(call.account, call.region)
    return next((row for row in rows if row.name == name), None)


def _to_api(group: PlacementGroup) -> dict[str, Any]:
    return {
        "GroupId": group.id,
        "GroupName": group.name,
        "GroupArn": f"arn:aws:ec2:{group.region}:{group.account}:placement-group/{group.name}",
        "State": "available",
        "Strategy": group.strategy,
        "PartitionCount": group.partitions,
        "SpreadLevel": group.spread_level,
        "Tags": tagging.to_api(group.tags),
    }
