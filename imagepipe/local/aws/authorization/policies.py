"""Check callers' policies: those of an access key, or those of the role that the caller has assumed.

A key without a policy may do anything, as may a role without one: policies are only for users who want to try one.
Decisions are kept, so that a test can compare them with a policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

from imagepipe.iam.conditions import NotUnderstood
from imagepipe.iam.evaluate import AuthorizationRequest, Rule, decide, rules_of
from imagepipe.local.aws.authentication.signature import Identity
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.moto import iam
from imagepipe.local.aws.protocol.errors import AwsError

CODES = {
    "ec2": "UnauthorizedOperation",
    "s3": "AccessDenied",
    "sts": "AccessDenied",
    "iam": "AccessDenied",
    "autoscaling": "AccessDenied",
}
"""Error code of a refusal by service; the others use AccessDeniedException."""


def rules(backend: Backend, identity: Identity) -> tuple[Rule, ...] | None:
    """Return the caller's rules; None without a policy. Raises AwsError for a policy that is not understood."""
    found = list(_policies(backend, identity.access_key_id))
    try:
        return tuple(rule for text in found for rule in _read(text)) if found else None
    except NotUnderstood as error:
        raise _not_understood(identity, error) from error


_read = lru_cache(maxsize=64)(rules_of)


def _policies(backend: Backend, access_key_id: str) -> Iterator[str]:
    """List the caller's policies: that of its key, or those of its role."""
    key = backend.database.access_keys.get(access_key_id)
    if key is not None:
        yield key.policy
    session = backend.database.sessions.get(access_key_id)
    if session is None:
        return
    role = iam.find_role(backend.moto, session.role_arn)
    if role is not None:
        yield from role.policies


def check(backend: Backend, identity: Identity, requests: Iterable[AuthorizationRequest]) -> None:
    """Raise AwsError for the first request that the caller's policies do not allow; a caller without one may do all."""
    found = rules(backend, identity)
    if found is None:
        return
    for request in requests:
        try:
            decision = decide(found, request)
        except NotUnderstood as error:
            raise _not_understood(identity, error) from error
        backend.evaluations.add(request, is_allowed=decision.is_allowed)
        if not decision.is_allowed:
            why = (
                "with an explicit deny in an identity-based policy"
                if decision.is_denied
                else f"because no identity-based policy allows the {request.action} action"
            )
            raise _refused(
                identity.service,
                f"You are not authorized to perform this operation. User: {backend.accounts.arn_of(identity)} is not"
                f" authorized to perform: {request.action} on resource: {request.resource} {why}",
            )


def allows(backend: Backend, access_key_id: str, request: AuthorizationRequest) -> bool:
    """Tell if the caller's policies allow a request on which an answer depends, and not the whole call."""
    found = list(_policies(backend, access_key_id))
    if not found:
        return True
    try:
        decision = decide([rule for text in found for rule in _read(text)], request)
    except NotUnderstood:
        return False
    backend.evaluations.add(request, is_allowed=decision.is_allowed)
    return decision.is_allowed


def refuse_admin(backend: Backend, identity: Identity) -> None:
    """Raise AwsError if a caller with a policy calls the cloud's own interface, which no policy can allow."""
    if rules(backend, identity) is not None:
        raise AwsError("AccessDenied", "A caller with a policy may not do that", status=403)


def _not_understood(identity: Identity, error: NotUnderstood) -> AwsError:
    return _refused(identity.service, f"A policy of the caller is not understood: {error}")


def _refused(service: str, message: str) -> AwsError:
    return AwsError(CODES.get(service, "AccessDeniedException"), message, status=403)
