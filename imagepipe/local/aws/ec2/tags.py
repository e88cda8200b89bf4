"""CreateTags, DeleteTags, DescribeTags: for the gateway's resources, and for moto's networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import metadata
from imagepipe.local.aws.moto.refusals import REFUSALS, unknown_id
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError, missing
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import MALFORMED, check_id, not_found
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Instance, Record, Rule, SecurityGroup

KINDS = {
    "acl": "network-acl",
    "ami": "image",
    "amiur": "image-usage-report",
    "dopt": "dhcp-options",
    "eipalloc": "elastic-ip",
    "eni": "network-interface",
    "i": "instance",
    "igw": "internet-gateway",
    "import": "import-snapshot-task",
    "key": "key-pair",
    "lt": "launch-template",
    "nat": "natgateway",
    "pg": "placement-group",
    "pl": "prefix-list",
    "rtb": "route-table",
    "sg": "security-group",
    "sgr": "security-group-rule",
    "sir": "spot-instances-request",
    "snap": "snapshot",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
    "vpce": "vpc-endpoint",
}
"""EC2's names of resource types, by the prefix of their ids."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """A resource that a request names."""

    id: str
    tags: Callable[[], Mapping[str, str]]
    put: Callable[[Mapping[str, str]], None]
    """Replaces all its tags."""


def create_tags(backend: Backend, call: Call) -> Mapping[str, Any]:
    tags = tagging.parse(call.params.get("Tags", []))
    if not tags:
        raise missing("Tag")
    for resource in _named(backend, call):
        resource.put(tagging.merge(resource.tags(), tags))
    return {}


def delete_tags(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Delete tags: one with a value only if it has that value, and all of them if none is given."""
    given = call.params.get("Tags")
    for resource in _named(backend, call):
        present = resource.tags()
        gone = {
            key
            for key, value in present.items()
            if given is None or any(tag.get("Key") == key and tag.get("Value", value) == value for tag in given)
        }
        resource.put({key: value for key, value in present.items() if key not in gone})
    return {}


def _named(backend: Backend, call: Call) -> list[_Resource]:
    """Find all resources that a request names, before any is changed. Raises AwsError."""
    identifiers = call.params.get("Resources", [])
    if not identifiers:
        raise missing("resourceIdSet")
    return [_find(backend, call, str(identifier)) for identifier in identifiers]


def _find(backend: Backend, call: Call, identifier: str) -> _Resource:
    database = backend.database
    record = database.find(identifier, call.region)
    if record is not None:
        if record.account != call.account:
            raise AwsError("AuthFailure", f"Not authorized for {identifier}", status=403)
        return _of_record(backend, record, "tags")
    for instance in database.instances.owned(call.account, call.region):
        if identifier == instance.interface_id and instance.state != "terminated":
            return _of_record(backend, instance, "interface_tags")
        if identifier == instance.spot_request_id:
            return _of_record(backend, instance, "spot_tags")
    for group in database.groups.owned(call.account, call.region):
        for rule in (*group.ingress, *group.egress):
            if rule.id == identifier:
                return _of_rule(backend, group, rule)
    if backend.network.has(call.account, call.region, identifier):
        return _of_moto(backend, call, identifier)
    prefix = identifier.partition("-")[0]
    if prefix in MALFORMED:
        check_id(prefix, identifier)
        raise not_found(prefix, [identifier])
    if prefix in REFUSALS:
        raise unknown_id(identifier)
    raise AwsError("InvalidID", f"The ID '{identifier}' is not valid")


def _of_record(backend: Backend, record: Record, field: str) -> _Resource:
    table = backend.database.table(type(record))

    def now() -> Record:
        return table.get(record.id) or record  # a request may name it twice

    def put(tags: Mapping[str, str]) -> None:
        changes: Any = {field: dict(tags)}
        changed = replace(now(), **changes)
        backend.database.put(changed)
        if isinstance(changed, Instance) and changed.metadata_options.get("InstanceMetadataTags") == "enabled":
            metadata.refresh_later(backend, changed)

    return _Resource(
        record.id,
        tags=lambda: getattr(now(), field),
        put=put,
    )


def _of_rule(backend: Backend, group: SecurityGroup, rule: Rule) -> _Resource:
    def now() -> SecurityGroup:
        return backend.database.groups.get(group.id) or group

    def tags() -> Mapping[str, str]:
        return next(each.tags for each in (*now().ingress, *now().egress) if each.id == rule.id)

    def put(tags: Mapping[str, str]) -> None:
        def tagged(rules: Iterable[Rule]) -> tuple[Rule, ...]:
            return tuple(replace(each, tags=dict(tags)) if each.id == rule.id else each for each in rules)

        found = now()
        backend.database.put(replace(found, ingress=tagged(found.ingress), egress=tagged(found.egress)))

    return _Resource(rule.id, tags=tags, put=put)


def _of_moto(backend: Backend, call: Call, identifier: str) -> _Resource:
    def put(tags: Mapping[str, str]) -> None:
        backend.database.later(partial(backend.network.set_tags, call.account, call.region, identifier, dict(tags)))

    return _Resource(
        identifier,
        tags=lambda: backend.network.tags(call.account, call.region).get(identifier, {}),
        put=put,
    )


@dataclass(frozen=True, slots=True)
class _Tag:
    id: str
    """Key of the resource and the tag together, for paging."""
    resource: str
    key: str
    value: str

    @property
    def tags(self) -> Mapping[str, str]:
        return {self.key: self.value}


GETTERS: Mapping[str, Getter] = {
    **filters.by_attribute("key", "value"),
    "resource-id": lambda row: row.resource,
    "resource-type": lambda row: KINDS.get(row.resource.partition("-")[0]),
}


def describe_tags(backend: Backend, call: Call) -> Mapping[str, Any]:
    everything = {**backend.network.tags(call.account, call.region), **_own_tags(backend, call)}
    rows = [
        _Tag(f"{resource} {key}", resource, key, value)
        for resource, tags in everything.items()
        for key, value in tags.items()
    ]
    shown, token = filters.page(rows, call.params, GETTERS)
    return {
        "Tags": [
            {
                "ResourceId": row.resource,
                "ResourceType": KINDS.get(row.resource.partition("-")[0], "other"),
                "Key": row.key,
                "Value": row.value,
            }
            for row in shown
        ],
        "NextToken": token,
    }


def _own_tags(backend: Backend, call: Call) -> dict[str, Mapping[str, str]]:
    """Return the tags of the gateway's own resources, by id."""
    database = backend.database
    tags = {row.id: row.tags for table in database.resources for row in table.owned(call.account, call.region)}
    for instance in database.instances.owned(call.account, call.region):
        if instance.state != "terminated":
            tags[instance.interface_id] = instance.interface_tags
        if instance.spot_request_id:
            tags[instance.spot_request_id] = instance.spot_tags
    for group in database.groups.owned(call.account, call.region):
        tags |= {rule.id: rule.tags for rule in (*group.ingress, *group.egress)}
    return tags
