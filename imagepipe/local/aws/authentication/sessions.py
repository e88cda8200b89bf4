"""Sessions of roles: temporary keys that expire by the cloud's clock."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from imagepipe.clock import iso
from imagepipe.local.aws.moto.iam import Role
from imagepipe.local.aws.state.clock import CloudClock
from imagepipe.local.aws.state.database import Database
from imagepipe.local.aws.state.records import Session
from imagepipe.local.store import new_key_id

REMEMBERED = timedelta(hours=1)  # an expired session; until then, it is reported as expired


def make(
    database: Database,
    clock: CloudClock,
    role: Role,
    *,
    name: str,
    region: str,
    lifetime: timedelta,
    instance_id: str = "",
) -> Session:
    """Make a session of a role, and forget old ones."""
    session = Session(
        id=new_key_id("ASIA"),
        account=role.arn.split(":")[4],
        region=region,
        secret_access_key=secrets.token_urlsafe(30),
        session_token=secrets.token_urlsafe(120),
        role_arn=role.arn,
        role_id=role.id,
        name=name,
        expires=clock.now() + lifetime,
        instance_id=instance_id,
    )
    with database.change():
        for old in database.sessions:
            if old.expires < clock.now() - REMEMBERED:
                database.remove(old)
        database.put(session)
    return session


def credentials_of(session: Session) -> Mapping[str, Any]:
    """Describe the keys as AssumeRole does."""
    return {
        "AccessKeyId": session.id,
        "SecretAccessKey": session.secret_access_key,
        "SessionToken": session.session_token,
        "Expiration": iso(session.expires),
    }
