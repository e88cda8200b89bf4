"""Operations of the services around EC2 and S3: the few that are done here, and the others, which moto does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.authorization.other_services import service_requests
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import Operation, RequestContext
from imagepipe.local.aws.moto.adapter import SERVICES as MOTO_SERVICES
from imagepipe.local.aws.moto.adapter import SIGNING_NAMES
from imagepipe.local.aws.protocol import query, rest_json
from imagepipe.local.aws.protocol.errors import unsupported
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.services import autoscaling, functions, imagebuilder, rbin, ssm, sts

OWN: Mapping[str, Callable[[Backend, RequestContext, str], Answer | None]] = {
    "autoscaling": autoscaling.answer,
    "imagebuilder": imagebuilder.answer,
    "lambda": functions.answer,
    "rbin": rbin.answer,
    "ssm": ssm.answer,
    "sts": sts.answer,
}
"""The services of which some actions are done here; None is the answer to those that moto may do."""


def parse(backend: Backend, context: RequestContext) -> Operation:
    """Find the action of a request in the JSON or in the query protocol. Faults select it by its name alone."""
    action = _action(context.identity.service, context.request)
    backend.calls.add(context.identity.service, action)
    permissions = service_requests(backend, context.identity, action, context.request)
    return Operation(action, {}, permissions, partial(_run, backend, context, action))


def _run(backend: Backend, context: RequestContext, action: str) -> Answer:
    service = context.identity.service
    run = OWN.get(service)
    own = run(backend, context, action) if run else None
    if own is not None:
        return own
    if SIGNING_NAMES.get(service, service) in MOTO_SERVICES:
        return backend.moto.answer(context, action)
    if run is not None:
        asked = f"action {action}" if action else f"request {context.request.method} {context.request.path}"
        raise unsupported(f"The local cloud does not have the {asked} of {service}")
    here = sorted({*MOTO_SERVICES, *OWN})
    raise unsupported(f"The local cloud has no service '{service}'; it has {', '.join(here)}")


def _action(service: str, request: Request) -> str:
    if service in rest_json.SERVICES:
        return rest_json.action(service, request)
    target = request.headers.get("x-amz-target", "")
    if target:
        return target.rpartition(".")[2]
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return query.form(request.query, request.body).get("Action", "")
    return ""
