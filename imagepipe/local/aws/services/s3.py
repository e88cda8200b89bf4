"""S3's operations, and the bytes of uploads on their way to disk."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.local.aws.authorization.other_services import of_s3
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.moto import s3
from imagepipe.local.aws.moto.s3_transfers import UPLOADS
from imagepipe.local.aws.protocol import http
from imagepipe.local.aws.protocol.bodies import Received
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer


def parse(backend: Backend, context: RequestContext) -> S3Operation:
    """Find the operation by method, path, query and headers."""
    operation = s3.parse(context.request)
    backend.calls.add("s3", operation.name)
    if not operation.name:
        text = "The specified method is not allowed against this resource."
        raise AwsError("MethodNotAllowed", text, status=405)
    return S3Operation(backend, context, operation)


@dataclass(frozen=True, slots=True)
class S3Operation:
    """An operation of S3, which moto does on the objects that it knows."""

    backend: Backend
    context: RequestContext
    operation: s3.Operation

    @property
    def action(self) -> str:
        return f"s3:{self.operation.name}"

    @property
    def params(self) -> Mapping[str, Any]:
        return {"Bucket": self.operation.bucket, "Key": self.operation.key}

    def authorization_requests(self) -> Iterable[AuthorizationRequest]:
        return of_s3(self.context.identity, self.context.request, self.operation)

    def answer(self) -> Answer:
        transfers = self.backend.transfers
        received = self._receive() if self.operation.name in UPLOADS else None
        try:
            with self.backend.moto.lock("s3"):
                return transfers.answer(self.context, self.operation, received)
        finally:
            if received is not None:
                transfers.release(received)

    def _receive(self) -> Received:
        """Write the body to disk. It is in memory already if the request does not state its digest."""
        request = self.context.request
        source = io.BytesIO(request.body) if request.body else self.context.environ["wsgi.input"]
        return self.backend.transfers.receive(request, source, http.length(request))
