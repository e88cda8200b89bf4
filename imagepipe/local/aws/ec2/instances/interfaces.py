"""Network interfaces: each instance has one, which lives as long as the instance."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances.describe import interface, public_ip, visible
from imagepipe.local.aws.moto.catalogue import zone_id
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.ids import check_id, not_found
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Instance


@dataclass(frozen=True, slots=True)
class _Row:
    instance: Instance

    @property
    def id(self) -> str:
        return self.instance.interface_id

    @property
    def tags(self) -> Mapping[str, str]:
        return self.instance.interface_tags


def describe_network_interfaces(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = [_Row(row) for row in visible(backend, call) if row.state != "terminated"]
    names = call.params.get("NetworkInterfaceIds", [])
    for name in names:
        check_id("eni", name)
    if unknown := sorted(set(names) - {row.id for row in rows}):
        raise not_found("eni", unknown)
    rows = [row for row in rows if not names or row.id in names]
    getters = AnswerFilters("DescribeNetworkInterfaces", partial(_to_api, backend))
    shown, token = filters.page(rows, call.params, getters, ids="NetworkInterfaceIds")
    return {"NetworkInterfaces": [_to_api(backend, row) for row in shown], "NextToken": token}


def _to_api(backend: Backend, row: _Row) -> dict[str, Any]:
    """Describe an interface as DescribeNetworkInterfaces does: with its place, its instance and its tags."""
    instance = row.instance
    described = interface(backend, instance, public_ip(instance))
    return {
        **described,
        "AvailabilityZone": instance.zone,
        "AvailabilityZoneId": zone_id(instance.zone),
        "Attachment": {
            **described["Attachment"],
            "InstanceId": instance.id,
            "InstanceOwnerId": instance.account,
        },
        "RequesterManaged": False,
        "TagSet": tagging.to_api(row.tags),
    }
