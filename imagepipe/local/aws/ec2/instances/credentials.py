"""Credentials of an instance's role, as its metadata serves them (EC2 user guide, "IAM roles for Amazon EC2").

Each is a session of the local cloud's own STS. It is made when the machine boots or gets another instance profile, and
again an hour before it expires; the earlier one stays valid until then.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import timedelta

from imagepipe.clock import iso
from imagepipe.local.aws.authentication import sessions
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.moto import iam
from imagepipe.local.aws.moto.iam import Role
from imagepipe.local.aws.state.records import Instance, Session

log = logging.getLogger(__name__)

LIFETIME = timedelta(hours=6)
RENEWED = timedelta(hours=1)  # before the end; EC2 promises new credentials five minutes before it
SERVICE = "ec2.amazonaws.com"


def profile_to_api(instance: Instance) -> dict[str, str] | None:
    """Describe the instance profile; None without one."""
    if not instance.iam_profile:
        return None
    name = instance.iam_profile.rpartition("/")[2]
    return {"Arn": f"arn:aws:iam::{instance.account}:instance-profile/{name}", "Id": f"AIPA{instance.id[2:].upper()}"}


def renew(backend: Backend, instance_id: str) -> bool:
    """Make credentials for an instance with a role, unless it has some that last; tell if they were made."""
    instance = backend.database.instances.get(instance_id)
    role = _role(backend, instance) if instance else None
    if instance is None or role is None or not _trusts_ec2(role):
        return False
    present = _session(backend, instance, role)
    if present is not None and present.expires - backend.clock.now() > RENEWED:
        return False
    sessions.make(
        backend.database,
        backend.clock,
        role,
        name=instance.id,
        region=instance.region,
        lifetime=LIFETIME,
        instance_id=instance.id,
    )
    return True


def values_of(backend: Backend, instance: Instance) -> Mapping[str, str]:
    """Return the instance's profile and its role's credentials, by path below `meta-data/`."""
    profile = profile_to_api(instance)
    if profile is None:
        return {}
    now = iso(backend.clock.now())
    success = {"Code": "Success", "LastUpdated": now}
    info = {**success, "InstanceProfileArn": profile["Arn"], "InstanceProfileId": profile["Id"]}
    values = {"iam/info": json.dumps(info, indent=2)}
    role = _role(backend, instance)
    if role is None:
        return values
    name = role.arn.rpartition("/")[2]
    session = _session(backend, instance, role)
    if session is not None:
        keys = sessions.credentials_of(session)
        shown = {
            **success,
            "Type": "AWS-HMAC",
            "AccessKeyId": keys["AccessKeyId"],
            "SecretAccessKey": keys["SecretAccessKey"],
            "Token": keys["SessionToken"],
            "Expiration": keys["Expiration"],
        }
    else:
        text = f"EC2 cannot assume the role {name}: its trust policy does not name {SERVICE}."
        shown = {"Code": "AssumeRoleUnauthorizedAccess", "Message": text, "LastUpdated": now}
    return {**values, f"iam/security-credentials/{name}": json.dumps(shown, indent=2)}


def _role(backend: Backend, instance: Instance) -> Role | None:
    return iam.find_profile_role(backend.moto, instance.account, instance.iam_profile) if instance.iam_profile else None


def _session(backend: Backend, instance: Instance, role: Role) -> Session | None:
    """Return the instance's newest session of a role that has not expired."""
    now = backend.clock.now()
    for session in reversed(list(backend.database.sessions)):
        if session.instance_id == instance.id and session.role_arn == role.arn and session.expires > now:
            return session
    return None


def _trusts_ec2(role: Role) -> bool:
    """Tell if the role's trust policy admits EC2."""
    statements = json.loads(role.trust_policy).get("Statement", [])
    for statement in statements if isinstance(statements, list) else [statements]:
        named = statement.get("Principal", {})
        services = named.get("Service", []) if isinstance(named, dict) else named
        if statement.get("Effect") == "Allow" and SERVICE in ([services] if isinstance(services, str) else services):
            return True
    return False
