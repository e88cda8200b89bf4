"""Recycle Bin of one region: the rules that retain deregistered images and their snapshots, and restoring them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from imagepipe.cloud.consistency import ignore_missing
from imagepipe.cloud.errors import translating
from imagepipe.cloud.session import Session
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError

ResourceType = Literal["EC2_IMAGE", "EBS_SNAPSHOT"]
_Tags = tuple[tuple[str, str | None], ...]
"""Keys and values of tags; None stands for any value."""


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """A rule that retains resources of one type."""

    id: str
    period: timedelta
    tags: _Tags = ()
    """The rule applies to resources with one of these tags; to all if there are none."""
    excluded: _Tags = ()
    """The rule does not apply to resources with one of these tags."""

    def applies_to(self, tags: Mapping[str, str]) -> bool:
        """Return whether the rule retains a resource with these tags."""
        if self.tags:
            return _has_one(tags, self.tags)
        return not _has_one(tags, self.excluded)


def _has_one(tags: Mapping[str, str], wanted: _Tags) -> bool:
    return any(key in tags and value in (None, tags[key]) for key, value in wanted)


def longest(rules: Sequence[RetentionRule], tags: Mapping[str, str]) -> timedelta | None:
    """Return how long a resource with these tags is retained: the longest period wins. None if no rule applies.

    Source: EBS user guide, "How Recycle Bin works".
    """
    return max((rule.period for rule in rules if rule.applies_to(tags)), default=None)


class RecycleBin:
    """Recycle Bin of one region."""

    def __init__(self, session: Session, client: Any, region: str) -> None:
        self._session = session
        self._client = client
        self.region = region

    def rules(self, kind: ResourceType) -> list[RetentionRule]:
        """Return the active rules for a type of resource. Raises CloudError."""
        rbin: Any = self._session.client("rbin", self.region)
        with translating(f"listing the rules of Recycle Bin in {self.region}", service="rbin"):
            pages = rbin.get_paginator("list_rules").paginate(ResourceType=kind)
            ids = [str(rule["Identifier"]) for page in pages for rule in page["Rules"]]
            rules = [rbin.get_rule(Identifier=id) for id in ids]  # only GetRule tells the tags
        return [_rule(rule) for rule in rules if rule.get("Status") == "available"]

    def restore(self, image: str, snapshots: Sequence[str]) -> list[str]:
        """Restore an image after its snapshots, and return the snapshots that were in Recycle Bin. Raises CloudError.

        EC2 does not list the snapshots of an image in Recycle Bin.
        """
        rows: list[Any] = []
        with (
            ignore_missing("InvalidAMIID.NotFound"),
            translating(f"looking for {image} in Recycle Bin in {self.region}"),
        ):
            rows = self._client.list_images_in_recycle_bin(ImageIds=[image])["Images"]
        if not rows:
            raise CloudError(f"{image} is not in Recycle Bin in {self.region}", code="InvalidAMIID.NotFound")
        restored = []
        for snapshot in snapshots:
            with translating(f"restoring {snapshot} in {self.region}"):
                present = self._client.list_snapshots_in_recycle_bin(SnapshotIds=[snapshot])["Snapshots"]
                if present:  # a snapshot that another image uses was not deleted
                    self._client.restore_snapshot_from_recycle_bin(SnapshotId=snapshot)
                    restored.append(snapshot)
        with translating(f"restoring {image} in {self.region}"):
            self._client.restore_image_from_recycle_bin(ImageId=image)
        return restored


def _rule(rule: Mapping[str, Any]) -> RetentionRule:
    period = timedelta(days=int(rule["RetentionPeriod"]["RetentionPeriodValue"]))
    return RetentionRule(
        str(rule["Identifier"]), period, _tags(rule.get("ResourceTags")), _tags(rule.get("ExcludeResourceTags"))
    )


def _tags(rows: Sequence[Mapping[str, str]] | None) -> _Tags:
    return tuple((row["ResourceTagKey"], row.get("ResourceTagValue")) for row in rows or ())
