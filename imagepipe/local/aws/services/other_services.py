"""Operations of the services around EC2 and S3: the few that are done here, and the others, which moto does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from imagepipe.iam.evaluate import AuthorizationRequest
from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.authorization.other_services import of_others
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.protocol import query
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.services import ssm, sts


def parse(backend: Backend, context: RequestContext) -> OtherOperation:
    """Find the action of a request in the JSON or in the query protocol."""
    action = _action(context.request)
    backend.calls.add(context.identity.service, action)
    return OtherOperation(backend, context, action)


@dataclass(frozen=True, slots=True)
class OtherOperation:
    """An operation of STS, Systems Manager, KMS, IAM or another service. Faults select it by its name alone."""

    backend: Backend
    context: RequestContext
    action: str

    @property
    def params(self) -> Mapping[str, Any]:
        return {}

    def authorization_requests(self) -> Iterable[AuthorizationRequest]:
        return of_others(self.backend, self.context.identity, self.action, self.context.request)

    def answer(self) -> Answer:
        own = None
        if self.context.identity.service == "sts":
            own = sts.answer(self.backend, self.context, self.action)
        elif self.context.identity.service == "ssm":
            own = ssm.answer(self.backend, self.context, self.action)
        return own or self.backend.moto.answer(self.context, self.action)


def _action(request: Request) -> str:
    target = request.headers.get("x-amz-target", "")
    if target:
        return target.rpartition(".")[2]
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return query.form(request.query, request.body).get("Action", "")
    return ""
