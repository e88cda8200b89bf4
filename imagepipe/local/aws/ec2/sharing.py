"""Launch permissions and volume permissions: users, groups and organizations, in EC2's two forms of request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid
from imagepipe.local.aws.protocol.query import Call

ACCOUNT = re.compile(r"\d{12}")
ORGANIZATION = re.compile(r"arn:aws[a-z-]*:organizations::\d{12}:(organization|ou)/.+")


def changed_users(
    users: tuple[str, ...], params: Mapping[str, Any], structure: str, *, groups: str = "UserGroups"
) -> tuple[str, ...]:
    """Return the users after a Modify…Attribute. Raises AwsError for an invalid user.

    Both forms: a structure with Add and Remove, and OperationType with lists of users and groups.
    """
    added: list[str] = []
    removed: list[str] = []
    if structure in params:
        added += _names(params[structure].get("Add", []))
        removed += _names(params[structure].get("Remove", []))
    operation = params.get("OperationType")
    listed = [
        *map(_user, params.get("UserIds", [])),
        *map(_group, params.get(groups, [])),
        *map(_organization, params.get("OrganizationArns", [])),
        *map(_organization, params.get("OrganizationalUnitArns", [])),
    ]
    if structure in params and operation is None:
        listed = []  # Packer sends the users in both forms at once, and EC2 uses the structure
    if listed and operation not in ("add", "remove"):
        raise conflicting("OperationType must be add or remove")
    (added if operation == "add" else removed).extend(listed)
    if not added and not removed:
        raise conflicting("No attributes specified.")
    return tuple(dict.fromkeys(user for user in (*users, *added) if user not in removed))


def _names(entries: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for entry in entries:
        if "UserId" in entry:
            yield _user(entry["UserId"])
        if "Group" in entry:
            yield _group(entry["Group"])
        for name in ("OrganizationArn", "OrganizationalUnitArn"):
            if name in entry:
                yield _organization(entry[name])


def _user(name: str) -> str:
    if not ACCOUNT.fullmatch(name):
        raise AwsError("InvalidAMIAttributeItemValue", f'Invalid attribute item value "{name}" for userId item type.')
    return name


def _group(name: str) -> str:
    if name != "all":
        raise AwsError("InvalidAMIAttributeItemValue", f'Invalid attribute item value "{name}" for group item type.')
    return name


def _organization(name: str) -> str:
    if not ORGANIZATION.fullmatch(name):
        raise invalid(f"Value ({name}) for parameter organizationArn is invalid.")
    return name


def audience(call: Call, names: Iterable[str]) -> set[str]:
    """Resolve names of accounts in a request: an id, `self`, or `all`."""
    return {call.account if name == "self" else name for name in names}


def executable(call: Call, names: Iterable[str], own_names: set[str]) -> set[str]:
    """Resolve ExecutableUsers; `self` includes organization and units (API reference, DescribeImages)."""
    users = audience(call, names)
    return users | (own_names - {"all"}) if call.account in users else users


def added(params: Mapping[str, Any], structure: str, *, groups: str = "UserGroups") -> tuple[str, ...]:
    """Return the users that a Modify…Attribute adds."""
    return changed_users((), params, structure, groups=groups)


def to_api(users: Iterable[str]) -> list[dict[str, str]]:
    """Describe launch permissions as DescribeImageAttribute does."""
    answers = []
    for user in users:
        if user == "all":
            answers.append({"Group": user})
        elif ":organization/" in user:
            answers.append({"OrganizationArn": user})
        elif ":ou/" in user:
            answers.append({"OrganizationalUnitArn": user})
        else:
            answers.append({"UserId": user})
    return answers
