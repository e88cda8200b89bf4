"""The permissions that calls to S3, Systems Manager and KMS need, and those that EC2 needs on a caller's behalf."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import unquote
from xml.etree import ElementTree

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.iam.facts import ANY, FREE
from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.authorization import service_resources
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.moto import iam, kms
from imagepipe.local.aws.moto.s3 import Operation
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Call, form, json_object

OBJECTS = {"GetObject": "GetObject", "HeadObject": "GetObject", "DeleteObject": "DeleteObject"}
PUTS = frozenset({"PutObject", "CopyObject"})
BUCKETS = {
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLocation": "GetBucketLocation",
    "GetBucketOwnershipControls": "GetBucketOwnershipControls",
    "HeadBucket": "ListBucket",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
}
"""IAM's actions by S3's operations (Service Authorization Reference, "Amazon S3")."""
EBS_AND_KEYS = (
    "kms:CreateGrant",
    "kms:Decrypt",
    "kms:DescribeKey",
    "kms:GenerateDataKeyWithoutPlaintext",
    "kms:ReEncryptFrom",
    "kms:ReEncryptTo",
)
"""EBS's actions with an account's own key, on behalf of a caller who asks for a volume or a copy (EBS user guide,
"Permissions for IAM users"). AWS's own key, `aws/ebs`, needs no permission."""


def common_context(account: str, region: str) -> dict[str, tuple[str, ...]]:
    """Return the condition keys that every request has."""
    return {"aws:PrincipalAccount": (account,), "aws:RequestedRegion": (region,)}


def s3_requests(identity: Identity, request: Request, operation: Operation) -> Iterator[AuthorizationRequest]:
    """List the permissions that a request to S3 needs. Raises AwsError for an unknown operation."""
    bucket = f"arn:aws:s3:::{operation.bucket}"
    known = common_context(identity.account, identity.region)
    name = operation.name
    if name in OBJECTS:
        yield AuthorizationRequest(f"s3:{OBJECTS[name]}", f"{bucket}/{operation.key}", known)
    elif name in PUTS:
        yield from _puts(request, f"{bucket}/{operation.key}", known)
    elif name == "DeleteObjects":
        for key in _deleted(request):
            yield AuthorizationRequest("s3:DeleteObject", f"{bucket}/{key}", known)
    elif name in BUCKETS:
        prefix = request.query_value("prefix")
        more = {} if prefix is None else {"s3:prefix": (prefix,)}
        yield AuthorizationRequest(f"s3:{BUCKETS[name]}", bucket, {**known, **more})
    elif name == "ListBuckets":
        yield AuthorizationRequest("s3:ListAllMyBuckets", ANY, known)
    else:
        text = f"The local cloud does not know what {name or 'this'} asks of IAM, so no caller with a policy may do it"
        raise AwsError("AccessDenied", text, status=403)


def _deleted(request: Request) -> Iterator[str]:
    """List the keys of a DeleteObjects."""
    try:
        # A caller of this store's own, whose signature is good.
        body = ElementTree.fromstring(request.body)  # noqa: S314
    except ElementTree.ParseError as error:
        raise AwsError("MalformedXML", f"The XML you provided was not well-formed: {error}") from error
    yield from (str(key.text) for key in body.iterfind("{*}Object/{*}Key"))


def _puts(request: Request, resource: str, known: Mapping[str, tuple[str, ...]]) -> Iterator[AuthorizationRequest]:
    """Ask to put an object; an ACL needs a second permission, and a copy needs one to read."""
    acl = request.headers.get("x-amz-acl") or request.query_value("x-amz-acl")
    more = {} if acl is None else {"s3:x-amz-acl": (acl,)}
    yield AuthorizationRequest("s3:PutObject", resource, {**known, **more})
    if acl is not None:
        yield AuthorizationRequest("s3:PutObjectAcl", resource, {**known, **more})
    if source := request.headers.get("x-amz-copy-source"):
        yield AuthorizationRequest(
            "s3:GetObject", f"arn:aws:s3:::{unquote(source).partition('?')[0].lstrip('/')}", known
        )


def service_requests(
    backend: Backend, identity: Identity, action: str, request: Request
) -> Iterator[AuthorizationRequest]:
    """List the permissions that a request to another service needs. Raises AwsError for an unknown action."""
    name, known = f"{identity.service}:{action}", common_context(identity.account, identity.region)
    if name in FREE:
        return
    if identity.service in service_resources.SERVICES:
        for permission, resource in service_resources.permissions(backend, identity, action, request):
            yield AuthorizationRequest(permission, resource, known)
    elif name == "sts:AssumeRole":
        yield AuthorizationRequest(name, form(request.query, request.body).get("RoleArn", ANY), known)
    elif name == "kms:DescribeKey":
        call = Call(action, identity.account, identity.region, {}, "")
        yield _key_request(backend, call, str(json_object(request.body).get("KeyId", "")), name, {})
    else:
        text = f"The local cloud does not know what {name} asks of IAM, so no caller with a policy may do it"
        raise AwsError("AccessDeniedException", text, status=403)


def pass_role_request(backend: Backend, call: Call, profile: str) -> AuthorizationRequest:
    """Ask to pass the role of an instance profile to EC2."""
    role = iam.role_of_profile(backend.moto, call.account, profile.rpartition("/")[2])
    known = common_context(call.account, call.region)
    return AuthorizationRequest("iam:PassRole", role, {**known, "iam:PassedToService": ("ec2.amazonaws.com",)})


def key_requests(backend: Backend, call: Call, key: str) -> Iterator[AuthorizationRequest]:
    """Ask for EBS's actions on a key, on the caller's behalf."""
    if re.search(r"alias/aws/ebs$", key):
        return
    via = {"kms:ViaService": (f"ec2.{call.region}.amazonaws.com",)}
    for action in EBS_AND_KEYS:
        more = {**via, "kms:GrantIsForAWSResource": ("true",)} if action == "kms:CreateGrant" else via
        yield _key_request(backend, call, key, action, more)


def _key_request(
    backend: Backend, call: Call, key: str, action: str, more: Mapping[str, tuple[str, ...]]
) -> AuthorizationRequest:
    found = kms.find_key(backend.moto, call.account, call.region, key)
    resource = found.arn if found else f"arn:aws:kms:{call.region}:{call.account}:key/{key}"
    aliases = {"kms:ResourceAliases": found.aliases} if found and found.aliases else {}
    return AuthorizationRequest(action, resource, {**common_context(call.account, call.region), **aliases, **more})
