"""Operations of the services around EC2 and S3: the few that are done here, and the others, which moto does."""

from __future__ import annotations

from functools import partial

from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.authorization.other_services import service_requests
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import Operation, RequestContext
from imagepipe.local.aws.protocol import query
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.services import empty, ssm, sts


def parse(backend: Backend, context: RequestContext) -> Operation:
    """Find the action of a request in the JSON or in the query protocol. Faults select it by its name alone."""
    action = _action(context.request)
    backend.calls.add(context.identity.service, action)
    permissions = service_requests(backend, context.identity, action, context.request)
    return Operation(action, {}, permissions, partial(_run, backend, context, action))


def _run(backend: Backend, context: RequestContext, action: str) -> Answer:
    own = None
    if context.identity.service == "sts":
        own = sts.answer(backend, context, action)
    elif context.identity.service == "ssm":
        own = ssm.answer(backend, context, action)
    else:
        own = empty.answer(context, action)
    return own or backend.moto.answer(context, action)


def _action(request: Request) -> str:
    target = request.headers.get("x-amz-target", "")
    if target:
        return target.rpartition(".")[2]
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return query.form(request.query, request.body).get("Action", "")
    return ""
