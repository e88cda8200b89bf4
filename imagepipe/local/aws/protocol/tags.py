"""Tags: check, merge and describe them as EC2 does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imagepipe.local.aws.protocol.errors import AwsError, invalid

MAX_TAGS = 50
MAX_KEY_LENGTH = 128
MAX_VALUE_LENGTH = 256


def parse(pairs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the tags of a request as a map. Raises AwsError for tags that EC2 does not take."""
    tags: dict[str, str] = {}
    for pair in pairs:
        key, value = str(pair.get("Key", "")), str(pair.get("Value", ""))
        if not key or len(key) > MAX_KEY_LENGTH:
            raise invalid(f"Tag key '{key}' must have between 1 and {MAX_KEY_LENGTH} characters")
        if len(value) > MAX_VALUE_LENGTH:
            raise invalid(f"Tag value exceeds the maximum length of {MAX_VALUE_LENGTH} characters: '{value}'")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys starting with 'aws:' are reserved for internal use")
        if key in tags:
            raise invalid(f"Duplicate tag key '{key}' specified.")
        tags[key] = value
    _check_count(tags)
    return tags


def merge(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    """Merge new tags into old ones. Raises AwsError for too many."""
    tags = {**old, **new}
    _check_count(tags)
    return tags


def _check_count(tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise AwsError("TagLimitExceeded", f"The maximum number of Tags for a resource is {MAX_TAGS}")


def parse_specifications(params: Mapping[str, Any], *kinds: str) -> dict[str, dict[str, str]]:
    """Return TagSpecifications by resource type, with an empty map for each kind that is not named.

    Raises AwsError for a resource type that the action does not make.
    """
    tags: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    seen: set[str] = set()
    for specification in params.get("TagSpecifications", []):
        kind = str(specification.get("ResourceType", ""))
        if kind not in tags:
            raise invalid(f"'{kind}' is not a valid taggable resource type for this operation.")
        if kind in seen:
            raise invalid(f"Duplicate resource type '{kind}' in TagSpecifications")
        seen.add(kind)
        tags[kind] = parse(specification.get("Tags", []))
    return tags


def to_api(tags: Mapping[str, str]) -> Sequence[dict[str, str]]:
    """Describe tags as EC2 does."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def if_any(tags: Mapping[str, str]) -> Sequence[dict[str, str]] | None:
    """Describe tags; return None, which leaves out the member, for a resource without any.

    EC2 does so for instances, images, volumes, snapshots, groups, networks and launch templates. For other kinds, such
    as key pairs and interfaces, its list is empty.
    """
    return to_api(tags) or None
