"""A request on its way through the gateway's handlers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from datetime import datetime, timedelta
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.local.aws.authentication import signature
from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.faults.injection import LateFaults
from imagepipe.local.aws.protocol.query import Answer

Environ = dict[str, Any]
XML_BY_PATH = frozenset({"s3", "s3express", "s3-object-lambda", "route53", "cloudfront"})
"""Services whose errors are XML though their requests have paths, by the names that requests are signed for."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One action of an AWS service, as a request asks for it."""

    action: str
    """Name for faults, such as `RunInstances` or `s3:PutObject`."""
    params: Mapping[str, Any]
    """Parameters that faults can select by."""
    authorization_requests: Iterable[AuthorizationRequest]
    """The permissions that the caller needs; listed only for a caller that has policies. Raises AwsError."""
    run: Callable[[], Answer]
    """The function that runs it; raises AwsError."""


@dataclass(slots=True)
class RequestContext:
    """A request and the results of the handlers that it has passed."""

    request: Request
    """The HTTP request; its body is empty until a handler reads it."""
    environ: Environ
    request_id: str
    now: datetime
    """Time of the cloud's clock, with the skew, by which signatures are checked."""
    skew: timedelta
    identity: Identity = field(init=False)
    """The caller, from `identify` on."""
    is_streamed: bool = False
    """True if the service itself reads the body: an upload can have gigabytes."""
    operation: Operation = field(init=False)
    """The requested operation, from `parse` on."""
    late_faults: LateFaults = field(default_factory=LateFaults)

    @property
    def dialect(self) -> str:
        """The protocol of error messages. Errors occur before the signature is verified, so its scope is trusted."""
        headers = self.request.headers
        if "x-amz-target" in headers or "json" in headers.get("content-type", ""):
            return "json"
        scope = signature.scope(self.request)
        # A request with an action and without a scope is of signature version 2, libcloud's default for EC2.
        service = scope.service if scope else "ec2" if "Action=" in self.request.query else "s3"
        if service not in XML_BY_PATH and self.request.path not in ("", "/"):
            return "json"  # query services have one path, and services with many paths speak JSON
        return service

    def with_request(self, request: Request) -> RequestContext:
        """Return a copy that has another request."""
        other = copy.copy(self)
        other.request = request
        return other
