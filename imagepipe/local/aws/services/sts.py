"""STS: callers assume roles, and get temporary keys that expire by the cloud's clock.

moto would make such keys too, but for roles that do not exist, for anybody, and by the computer's clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from imagepipe.local.aws.authentication import sessions
from imagepipe.local.aws.authentication.signature import Identity
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.moto import iam
from imagepipe.local.aws.moto.iam import Role
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer, form, result

ROLE = re.compile(r"arn:aws:iam::(\d{12}):role/(?:[\w+=,.@-]+/)*([\w+=,.@-]+)")
NAME = re.compile(r"[\w+=,.@-]{2,64}")
MIN_SECONDS = 900
CHAINED_SECONDS = 3600
"""Longest session of a role that another role assumes (IAM user guide, "Role chaining")."""


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer actions that concern roles; None for an action that moto may answer."""
    identity = context.identity
    if action == "AssumeRole":
        values = form(context.request.query, context.request.body)
        return result(action, _assume_role(backend, identity, values), context.request_id, "sts")
    session = backend.database.sessions.get(identity.access_key_id)
    if action == "GetCallerIdentity" and session is not None:
        who = {"UserId": f"{session.role_id}:{session.name}", "Account": session.account, "Arn": session.arn}
        return result(action, who, context.request_id, "sts")
    return None


def _assume_role(backend: Backend, identity: Identity, values: Mapping[str, str]) -> Mapping[str, Any]:
    arn, name = values.get("RoleArn", ""), values.get("RoleSessionName", "")
    if not NAME.fullmatch(name):
        raise AwsError("ValidationError", f"The role session name {name!r} has 2 to 64 letters, digits or _+=,.@-")
    found = ROLE.fullmatch(arn)
    if found is None:
        raise AwsError("ValidationError", f"{arn} is invalid")
    role = iam.find_role(backend.moto, arn)
    who = backend.accounts.arn_of(identity)
    if role is None or not _trusts(role.trust_policy, identity, who, values.get("ExternalId")):
        raise AwsError(
            "AccessDenied",
            f"User: {who} is not authorized to perform: sts:AssumeRole on resource: {arn}",
            status=403,
        )
    seconds = _seconds(backend, identity, values, role)
    session = sessions.make(
        backend.database,
        backend.clock,
        role,
        name=name,
        region=identity.region,
        lifetime=timedelta(seconds=seconds),
    )
    return {
        "Credentials": sessions.credentials_of(session),
        "AssumedRoleUser": {"AssumedRoleId": f"{session.role_id}:{name}", "Arn": session.arn},
        "PackedPolicySize": 0,
    }


def _seconds(backend: Backend, identity: Identity, values: Mapping[str, str], role: Role) -> int:
    given = values.get("DurationSeconds", "3600")
    seconds = int(given) if given.isdigit() else 0
    if not MIN_SECONDS <= seconds <= 43200:
        raise AwsError("ValidationError", f"Value '{given}' at 'durationSeconds' is not from {MIN_SECONDS} to 43200")
    if backend.database.sessions.get(identity.access_key_id) and seconds > CHAINED_SECONDS:
        raise AwsError(
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        )
    if seconds > role.max_session_seconds:
        raise AwsError(
            "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        )
    return seconds


def _trusts(policy: str, identity: Identity, caller: str, external_id: str | None) -> bool:
    """Tell if the role's trust policy admits the caller: by AWS principals, and by the external id if it wants one."""
    statements = json.loads(policy).get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        named = statement.get("Principal", {})
        principals = ["*"] if named == "*" else _list(named.get("AWS", []))
        wanted = statement.get("Condition", {}).get("StringEquals", {}).get("sts:ExternalId")
        knows = wanted is None or external_id in _list(wanted)
        if statement.get("Effect") == "Allow" and knows and _is_named(principals, identity, caller):
            return True
    return False


def _is_named(principals: list[str], identity: Identity, caller: str) -> bool:
    everybody_there = {"*", identity.account, f"arn:aws:iam::{identity.account}:root"}
    return bool({caller, *everybody_there} & set(principals))


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
