"""S3's operations, and the bytes of uploads on their way to disk."""

from __future__ import annotations

import io
from functools import partial

from imagepipe.local.aws.authorization.other_services import s3_requests
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import Operation, RequestContext
from imagepipe.local.aws.moto import s3
from imagepipe.local.aws.moto.s3_transfers import UPLOADS
from imagepipe.local.aws.protocol import http
from imagepipe.local.aws.protocol.bodies import HttpChunks, Received
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer


def parse(backend: Backend, context: RequestContext) -> Operation:
    """Find the operation by method, path, query and headers."""
    operation = s3.parse(context.request)
    backend.calls.add("s3", operation.name)
    if not operation.name:
        text = "The specified method is not allowed against this resource."
        raise AwsError("MethodNotAllowed", text, status=405)
    return Operation(
        action=f"s3:{operation.name}",
        params={"Bucket": operation.bucket, "Key": operation.key},
        authorization_requests=s3_requests(context.identity, context.request, operation),
        run=partial(_run, backend, context, operation),
    )


def _run(backend: Backend, context: RequestContext, operation: s3.Operation) -> Answer:
    received = _receive(backend, context) if operation.name in UPLOADS else None
    try:
        with backend.moto.lock("s3"):
            return backend.transfers.answer(context, operation, received)
    finally:
        if received is not None:
            backend.transfers.release(received)


def _receive(backend: Backend, context: RequestContext) -> Received:
    """Write the body to disk. It is in memory already if the request does not state its digest."""
    request = context.request
    if http.is_chunked_upload(request):
        return backend.transfers.receive(request, HttpChunks(context.environ["wsgi.input"].rfile), None)
    source = io.BytesIO(request.body) if request.body else context.environ["wsgi.input"]
    return backend.transfers.receive(request, source, http.length(request))
