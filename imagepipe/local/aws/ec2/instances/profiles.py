"""The instance profile of an instance, and its changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances import metadata
from imagepipe.local.aws.ec2.instances.credentials import profile_to_api
from imagepipe.local.aws.moto import iam
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Instance


def find_profile(backend: Backend, call: Call, given: Mapping[str, Any]) -> str | None:
    """Return the instance profile that a request names; an empty name, which Packer sends, means none."""
    name = given.get("Arn") or given.get("Name")
    if not name:
        return None
    if not iam.has_instance_profile(backend.moto, call.account, name):
        raise invalid(
            f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
        )
    return str(name)


@dataclass(frozen=True, slots=True)
class _Association:
    """The link between an instance and its profile."""

    instance: Instance

    @property
    def id(self) -> str:
        return self.instance.profile_association

    @property
    def tags(self) -> Mapping[str, str]:
        return {}


GETTERS: Mapping[str, Getter] = {
    "instance-id": lambda row: row.instance.id,
    "state": lambda row: "associated",
}


def associate_iam_instance_profile(backend: Backend, call: Call) -> Mapping[str, Any]:
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    if instance.iam_profile:
        text = f"There is an existing association for instance {instance.id}"
        raise AwsError("IncorrectState", text)
    return _associate(backend, call, instance)


def replace_iam_instance_profile_association(backend: Backend, call: Call) -> Mapping[str, Any]:
    found = _find(backend, call, call.text("AssociationId"))
    return _associate(backend, call, found.instance)


def _associate(backend: Backend, call: Call, instance: Instance) -> Mapping[str, Any]:
    profile = find_profile(backend, call, call.params["IamInstanceProfile"])
    if profile is None:
        raise invalid("The request must name an instance profile by its name or its ARN")
    changed = replace(instance, iam_profile=profile, profile_association=new_id("iip-assoc"))
    backend.database.put(changed)
    metadata.refresh_later(backend, changed)
    described = {**_to_api(backend, _Association(changed)), "State": "associating"}
    return {"IamInstanceProfileAssociation": described}


def disassociate_iam_instance_profile(backend: Backend, call: Call) -> Mapping[str, Any]:
    found = _find(backend, call, call.text("AssociationId"))
    described = {**_to_api(backend, found), "State": "disassociating"}
    changed = replace(found.instance, iam_profile=None, profile_association="")
    backend.database.put(changed)
    metadata.refresh_later(backend, changed)
    return {"IamInstanceProfileAssociation": described}


def describe_iam_instance_profile_associations(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = _all(backend, call)
    if names := call.params.get("AssociationIds", []):
        rows = [_find(backend, call, name) for name in names]
    getters = AnswerFilters("DescribeIamInstanceProfileAssociations", partial(_to_api, backend), GETTERS)
    shown, token = filters.page(rows, call.params, getters, ids="AssociationIds")
    return {"IamInstanceProfileAssociations": [_to_api(backend, row) for row in shown], "NextToken": token}


def _all(backend: Backend, call: Call) -> list[_Association]:
    rows = backend.database.instances.owned(call.account, call.region)
    return [_Association(row) for row in rows if row.profile_association and row.state != "terminated"]


def _find(backend: Backend, call: Call, identifier: str) -> _Association:
    for row in _all(backend, call):
        if row.id == identifier:
            return row
    raise AwsError("NoSuchAssociation", f"An invalid association-id of '{identifier}' was given")


def _to_api(backend: Backend, row: _Association) -> dict[str, Any]:
    return {
        "AssociationId": row.id,
        "InstanceId": row.instance.id,
        "IamInstanceProfile": profile_to_api(row.instance),
        "State": "associated",
        "Timestamp": row.instance.launch_time,
    }
