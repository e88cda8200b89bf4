"""The parts of S3 that moto lacks: parse the operation, redirect to the bucket's region, check that bytes arrived
whole."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from urllib.parse import unquote

from moto.core.utils import get_service_model
from moto.s3.models import s3_backends
from moto.utilities.utils import get_partition

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import XML, Answer

EVERYWHERE = frozenset({"CreateBucket", "ListBuckets", "GetBucketLocation"})
"""Operations that any region answers."""
CONDITIONAL_WRITES = frozenset({"PutObject", "CompleteMultipartUpload"})
UNKNOWN_TO_MOTO = re.compile(
    "Abac|Analytics|Annotation|IntelligentTiering|Metadata|Metrics|Torrent|CreateSession|RenameObject|UpdateObject"
    "|WriteGetObjectResponse|DeleteBucketInventory|PutBucketRequestPayment"
)
"""Operations that moto takes for the one without a subresource: DeleteBucketMetricsConfiguration for DeleteBucket."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of S3 on a bucket or an object."""

    name: str
    """Name in the API reference; empty if S3 has no such operation."""
    bucket: str
    key: str


def parse(request: Request) -> Operation:
    """Find the operation of a request by method, path, query and headers, as the service model has them."""
    bucket, key = _place(request)
    given = {name for name, _ in request.query_pairs()} | set(request.headers)
    depth = 2 if key else 1 if bucket else 0
    fits = [each for each in _operations().get((request.method, depth), ()) if each[1] <= given]
    return Operation(max(fits, key=lambda each: len(each[1]))[0] if fits else "", bucket, key)


def _place(request: Request) -> tuple[str, str]:
    """Return bucket and key, each empty if the request names none."""
    path = unquote(request.path).removeprefix("/")
    host = request.headers.get("host", "").partition(":")[0]
    if host.endswith(".localhost"):
        return host.removesuffix(".localhost"), path
    bucket, _, key = path.partition("/")
    return bucket, key


@cache
def _operations() -> Mapping[tuple[str, int], Sequence[tuple[str, frozenset[str]]]]:
    """Map a method and a depth of the path to operations, with the query fields and headers that each requires."""
    model, found = get_service_model("s3"), defaultdict[tuple[str, int], list[tuple[str, frozenset[str]]]](list)
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        shape = operation.input_shape
        required = {word.partition("=")[0] for word in query.split("&") if word}
        for member in shape.required_members if shape else ():
            serialization = shape.members[member].serialization
            if serialization.get("location") in ("querystring", "header"):
                required.add(
                    serialization["name"].lower() if serialization["location"] == "header" else serialization["name"]
                )
        members = shape.members if shape else {}
        depth = 2 if "{Key+}" in path else 1 if "Bucket" in members else 0
        found[operation.http["method"], depth].append((name, frozenset(required)))
    return found


def redirect(identity: Identity, operation: Operation) -> Answer | None:
    """Return S3's answer if the bucket is in another region (S3 user guide, "Request redirection and the REST API")."""
    bucket = bucket_of(identity, operation.bucket)
    if bucket is None or bucket.region_name == identity.region or operation.name in EVERYWHERE:
        return None
    text = "The bucket you are attempting to access must be addressed using the specified endpoint."
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>PermanentRedirect</Code>'
        f"<Message>{text}</Message><Bucket>{operation.bucket}</Bucket>"
        f"<Endpoint>s3.{bucket.region_name}.amazonaws.com</Endpoint></Error>"
    )
    return Answer(301, (("Content-Type", XML), ("x-amz-bucket-region", bucket.region_name)), body.encode())


def check_supported(operation: Operation) -> None:
    """Raise AwsError for an operation that moto would take for another one."""
    if UNKNOWN_TO_MOTO.search(operation.name):
        raise AwsError("NotImplemented", f"The local cloud does not have {operation.name}", status=501)


def check_conditions(request: Request, operation: Operation) -> None:
    """Raise AwsError for a condition on a write that S3 does not have: If-None-Match takes only an asterisk.

    moto, under S3's lock, does the rest: the object is absent, or has the ETag, or the answer is 412.
    """
    if operation.name in CONDITIONAL_WRITES and request.headers.get("if-none-match", "*") != "*":
        text = "A header you provided implies functionality that is not implemented"
        raise AwsError("NotImplemented", text, status=501)


def bucket_of(identity: Identity, name: str) -> Any:
    """Find moto's bucket of this name in any account."""
    partition, account = s3_backends.bucket_accounts.get(name, (get_partition(identity.region), identity.account))
    return s3_backends[account][partition].buckets.get(name)


def check_md5(request: Request, found: bytes) -> None:
    """Raise AwsError if Content-MD5 states another MD5 than this one, that of the body within its chunks."""
    stated = request.headers.get("content-md5")
    if stated is None:
        return
    try:
        required = base64.b64decode(stated, validate=True)
    except binascii.Error:
        required = b""
    if len(required) != hashlib.md5(usedforsecurity=False).digest_size:
        raise AwsError("InvalidDigest", "The Content-MD5 you specified was invalid.")
    if found != required:
        raise AwsError("BadDigest", "The Content-MD5 you specified did not match what we received.")


def check_signed_headers(request: Request) -> None:
    """Raise AwsError if a presigned URL comes with x-amz headers that it was not signed for."""
    signed = (request.query_value("X-Amz-SignedHeaders") or "").lower().split(";")
    more = sorted(name for name in request.headers if name.startswith("x-amz-") and name not in signed)
    if request.query_value("X-Amz-Signature") and more:
        text = f"There were headers present in the request which were not signed: {', '.join(more)}"
        raise AwsError("AccessDenied", text, status=403)
