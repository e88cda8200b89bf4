"""Requests to IAM about EC2's resources: about new ones, and about those that a call names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.iam.facts import ACTIONS, arn, family, keys_of
from imagepipe.local.aws.authorization.other_services import common_context
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.tags import KINDS
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image, KeyPair, PlacementGroup, RecycledImage, Volume

Values = Mapping[str, str | tuple[str, ...]]
Requests = Callable[[Backend, Call], Iterator[AuthorizationRequest]]
"""The permissions that a call needs."""


def request(
    call: Call, action: str, kind: str, id: str, values: Values, *, region: str | None = None
) -> AuthorizationRequest:
    """Make one request, with the action's condition keys. Raises AwsError if the action has no such resource type."""
    name = f"ec2:{action}"
    try:
        known = keys_of(name, kind)
    except KeyError:
        text = f"The local cloud does not know what {name} asks of IAM about a thing like {id}"
        raise AwsError("UnauthorizedOperation", text, status=403) from None
    context = common_context(call.account, call.region) | {
        key: (value,) if isinstance(value, str) else value for key, value in values.items() if family(key) in known
    }
    return AuthorizationRequest(name, arn(region or call.region, kind, id, account=call.account), context)


def prefixed_tags(tags: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    return {f"{prefix}/{key}": value for prefix in prefixes for key, value in tags.items()}


def requested_tags(tags: Mapping[str, str]) -> dict[str, str | tuple[str, ...]]:
    return {**prefixed_tags(tags, "aws:RequestTag"), **({"aws:TagKeys": tuple(tags)} if tags else {})}


def creates(call: Call, kind: str, id: str = "*", more: Values | None = None) -> Iterator[AuthorizationRequest]:
    """Ask to create a resource, and to tag it if the call does."""
    specified = {str(each.get("ResourceType")): each for each in call.params.get("TagSpecifications", [])}
    tags = tagging.parse(specified.get(kind, {}).get("Tags", []))
    yield request(call, call.action, kind, id, {**requested_tags(tags), **(more or {})})
    if tags:
        yield request(call, "CreateTags", kind, id, {**requested_tags(tags), "ec2:CreateAction": call.action})


def use_request(backend: Backend, call: Call, id: str, more: Values | None = None) -> AuthorizationRequest:
    """Ask to use a resource; for one that the caller cannot see, IAM knows only the id."""
    kind = KINDS.get(id.partition("-")[0], "instance")
    record = backend.database.find(id, call.region)
    tags = record.tags if record else backend.network.tags(call.account, call.region).get(id, {})
    values = {**(more or {}), **prefixed_tags(tags, "aws:ResourceTag", "ec2:ResourceTag")}
    if record is not None:
        values["ec2:Owner"] = record.account
    if isinstance(record, Volume):
        values["ec2:Encrypted"] = str(record.encrypted).lower()
    if isinstance(record, RecycledImage):
        values["ec2:ImageID"] = id
    if isinstance(record, Image):
        values |= {"ec2:ImageID": id, "ec2:Public": str("all" in record.users).lower()}
    name = record.name if isinstance(record, KeyPair | PlacementGroup) else id
    return request(call, call.action, kind, name, values)


def key_pair_request(backend: Backend, call: Call, name: object, id: object = None) -> AuthorizationRequest:
    """Ask to use the key pair of this name or id."""
    for pair in backend.database.key_pairs.owned(call.account, call.region):
        if pair.name == name or pair.id == id:
            return use_request(backend, call, pair.id)
    return request(call, call.action, "key-pair", str(name or id), {})


def named_by(*names: str) -> Requests:
    """Make the function for an action that touches only the resources that these parameters name."""

    def requests(backend: Backend, call: Call) -> Iterator[AuthorizationRequest]:
        found = [call.params.get(name) or [] for name in names]
        ids = [id for each in found for id in ([each] if isinstance(each, str) else each)]
        for id in ids:
            yield use_request(backend, call, id)
        if not ids:  # the action refuses the request, and without a request to IAM anybody could ask for it
            yield request(call, call.action, next(iter(ACTIONS[f"ec2:{call.action}"])), "*", {})

    return requests
