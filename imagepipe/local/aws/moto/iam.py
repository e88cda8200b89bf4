"""IAM's roles and instance profiles, which moto keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.moto.adapter import Moto


@dataclass(frozen=True, slots=True)
class Role:
    """A role and its policies."""

    id: str
    arn: str
    trust_policy: str
    """JSON."""
    max_session_seconds: int
    policies: tuple[str, ...]
    """JSON: the inline policies, and the default versions of those that are attached."""


def find_role(moto: Moto, arn: str) -> Role | None:
    """Find the role with this ARN."""
    for role in moto.model("iam", arn.split(":")[4], "aws").roles.values():
        if role.arn == arn:
            seconds = int(role.max_session_duration or 3600)
            return Role(str(role.id), arn, role.assume_role_policy_document, seconds, tuple(_policies(role)))
    return None


def has_role(moto: Moto, account: str, name: str) -> bool:
    return any(role.name == name for role in moto.model("iam", account, "aws").roles.values())


def has_instance_profile(moto: Moto, account: str, name_or_arn: str) -> bool:
    return any(name_or_arn in (profile.name, profile.arn) for profile in _profiles(moto, account))


def find_profile_role(moto: Moto, account: str, name_or_arn: str) -> Role | None:
    """Find the role of an instance profile; None without one, or without the profile."""
    for profile in _profiles(moto, account):
        if name_or_arn in (profile.name, profile.arn) and profile.roles:
            return find_role(moto, str(profile.roles[0].arn))
    return None


def role_of_profile(moto: Moto, account: str, profile: str) -> str:
    """Return the ARN of the profile's role. If the profile has none, return that of a role with the profile's name."""
    roles = [role for found in _profiles(moto, account) if found.name == profile for role in found.roles]
    return str(roles[0].arn) if roles else f"arn:aws:iam::{account}:role/{profile}"


def _profiles(moto: Moto, account: str) -> list[Any]:
    return list(moto.model("iam", account, "aws").instance_profiles.values())


def _policies(role: Any) -> Iterator[str]:
    yield from (_text(document) for document in role.policies.values())
    for attached in role.managed_policies.values():
        yield from (_text(version.document) for version in attached.versions if version.is_default)


def _text(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)
