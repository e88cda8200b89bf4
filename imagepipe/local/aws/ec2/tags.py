"""CreateTags, DeleteTags, DescribeTags: for the gateway's records, and for moto's VPCs and subnets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError, missing
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import MALFORMED, check_id, not_found
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Record

KINDS = {
    "i": "instance",
    "vol": "volume",
    "snap": "snapshot",
    "ami": "image",
    "key": "key-pair",
    "sg": "security-group",
    "vpc": "vpc",
    "subnet": "subnet",
}


def create_tags(backend: Backend, call: Call) -> Mapping[str, Any]:
    tags = tagging.parse(call.params.get("Tags", []))
    if not tags:
        raise missing("Tag")
    for record, identifier in _named(backend, call):
        if record is None:
            _tell_moto(backend, call, identifier, dict(tags))
        else:
            backend.database.put(replace(record, tags=tagging.merge(record.tags, tags)))
    return {}


def delete_tags(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Delete tags: one with a value only if it has that value, and all of them if none is given."""
    given = call.params.get("Tags")
    for record, identifier in _named(backend, call):
        present = record.tags if record else backend.network.tags(call.account, call.region).get(identifier, {})
        gone = {
            key
            for key, value in present.items()
            if given is None or any(tag.get("Key") == key and tag.get("Value", value) == value for tag in given)
        }
        if record is None:
            _tell_moto(backend, call, identifier, dict.fromkeys(gone))
        else:
            backend.database.put(replace(record, tags={k: v for k, v in present.items() if k not in gone}))
    return {}


def _tell_moto(backend: Backend, call: Call, identifier: str, tags: Mapping[str, str | None]) -> None:
    backend.database.later(partial(backend.network.change_tags, call.account, call.region, identifier, dict(tags)))


def _named(backend: Backend, call: Call) -> Iterator[tuple[Record | None, str]]:
    """Find all resources that a request names, before any is changed. The record of moto's resources is None."""
    found: list[tuple[Record | None, str]] = []
    for identifier in call.params.get("Resources", []):
        prefix = identifier.partition("-")[0]
        record = backend.database.find(identifier, call.region)
        if record is not None and record.account != call.account:
            raise AwsError("AuthFailure", f"Not authorized for {identifier}", status=403)
        if record is None and not backend.network.has(call.account, call.region, identifier):
            if prefix in MALFORMED:
                check_id(prefix, identifier)
                raise not_found(prefix, [identifier])
            raise AwsError("InvalidID", f"The ID '{identifier}' is not valid")
        found.append((record, identifier))
    if not found:
        raise missing("ResourceId")
    yield from found


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
    tables = backend.database.resources
    owned = {row.id: row.tags for table in tables for row in table.owned(call.account, call.region)}
    everything = {**backend.network.tags(call.account, call.region), **owned}
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
