"""Find the operation that a request asks for, by the service that it is signed for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import Operation, RequestContext
from imagepipe.local.aws.moto import s3 as s3_operations
from imagepipe.local.aws.moto.s3_transfers import UPLOADS
from imagepipe.local.aws.services import ec2, other_services, s3

PARSERS: Mapping[str, Callable[[Backend, RequestContext], Operation]] = {"ec2": ec2.parse, "s3": s3.parse}


def parse(backend: Backend, context: RequestContext) -> Operation:
    """Parse the request and count the call. Raises AwsError for an operation that the service does not have."""
    parser = PARSERS.get(context.identity.service, other_services.parse)
    return parser(backend, context)


def streams_body(context: RequestContext) -> bool:
    """Tell if the service writes the request's body to disk as it arrives."""
    return context.identity.service == "s3" and s3_operations.parse(context.request).name in UPLOADS
