"""The steps that every request takes, in the order of `app.HANDLERS`.

A handler returns an answer to end the chain, or None to pass the request on; it raises AwsError to refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from imagepipe.local.aws import admin
from imagepipe.local.aws.authentication import signature
from imagepipe.local.aws.authorization import policies
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import Operation, RequestContext
from imagepipe.local.aws.faults import injection
from imagepipe.local.aws.moto import s3 as s3_operations
from imagepipe.local.aws.moto.s3_transfers import UPLOADS
from imagepipe.local.aws.protocol import http
from imagepipe.local.aws.protocol.paths import HAS_TOKEN, OWN_PATHS
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.services import ec2, other_services, s3

PARSERS: Mapping[str, Callable[[Backend, RequestContext], Operation]] = {"ec2": ec2.parse, "s3": s3.parse}
"""Parsers by service; `other_services` parses requests to all others."""


def refuse_strangers(backend: Backend, context: RequestContext) -> None:
    """Refuse requests that a web page could have sent, and those of other machines without the token."""
    http.check_origin(context.request, has_token=context.environ.get(HAS_TOKEN))


def answer_health(backend: Backend, context: RequestContext) -> Answer | None:
    """Answer the health check, the only request that needs no signature."""
    return admin.health() if context.request.path == admin.HEALTH else None


def identify(backend: Backend, context: RequestContext) -> None:
    """Find the caller by the signature. A body that the signature covers is read only if the caller's key is known."""
    secret = backend.accounts.secret
    if not signature.check_caller(context.request, secret, context.now):
        context.request = http.with_body(context.request, context.environ)
    context.identity = signature.identify(context.request, secret, context.now, backend.clock.now())


def read_body(backend: Backend, context: RequestContext) -> None:
    """Read the body and compare it with its signed digest, unless the service streams it to disk."""
    context.is_streamed = context.identity.service == "s3" and s3_operations.parse(context.request).name in UPLOADS
    if not context.is_streamed:
        context.request = http.with_body(context.request, context.environ)
        signature.check_payload(context.request)


def answer_admin(backend: Backend, context: RequestContext) -> Answer | None:
    """Answer requests to the cloud's own interface."""
    if context.is_streamed or not context.request.path.startswith(OWN_PATHS):
        return None
    policies.refuse_admin(backend, context.identity)
    return admin.answer(backend, context.identity, context.request)


def parse(backend: Backend, context: RequestContext) -> None:
    """Find the operation that the request asks for, and count the call."""
    parse_request = PARSERS.get(context.identity.service, other_services.parse)
    context.operation = parse_request(backend, context)


def authorize(backend: Backend, context: RequestContext) -> None:
    """Check the caller's policies."""
    policies.check(backend, context.identity, context.operation.authorization_requests)


def inject_faults(backend: Backend, context: RequestContext) -> None:
    """Inject the faults that precede the effect, and note those that follow it."""
    operation = context.operation
    context.late_faults = injection.inject(backend.faults, context.identity, operation.action, operation.params)


def dispatch(backend: Backend, context: RequestContext) -> Answer:
    """Have the service do the operation, and inject the faults that follow the effect."""
    answer = context.operation.run()
    context.late_faults.inject()
    return answer
