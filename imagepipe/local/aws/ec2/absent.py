"""Kinds of resources of which the local cloud has none, so that their lists are empty.

Clients describe them beside the resources that they are about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.moto.refusals import unknown_id
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol.documented_filters import Described, documented, item_path
from imagepipe.local.aws.protocol.query import Call

ACTIONS = frozenset(
    {
        "DescribeCapacityReservations",
        "DescribeEgressOnlyInternetGateways",
        "DescribeFastSnapshotRestores",
        "DescribeFlowLogs",
        "DescribeHosts",
        "DescribeSnapshotTierStatus",
        "DescribeSpotFleetRequests",
        "DescribeTransitGateways",
        "DescribeVpnGateways",
    }
)


def describe_none(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe nothing. Raises AwsError for a resource that the request names, and for filters that EC2 lacks."""
    for name, wanted in call.params.items():
        if name.endswith("Ids") and wanted:
            raise unknown_id(str(wanted[0]))
    params = {"Filters": call.params.get("Filters") or call.params.get("Filter") or []}
    none: list[Described] = []
    filters.page(none, params, dict.fromkeys(documented(call.action), lambda row: None))
    [name] = item_path(call.action)
    return {name: []}
