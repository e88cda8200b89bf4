"""The end of an image's life in one region: deprecate, disable, enable again, deregister with its snapshots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from imagepipe.cloud import tags as tagging
from imagepipe.cloud.consistency import chunks
from imagepipe.cloud.errors import translating

PAGE = 500
SNAPSHOT_RESULTS: Mapping[str, str] = {
    "skipped": "another image uses it",
    "missing-permissions": "not authorised: ec2:DeleteSnapshot is missing",
    "internal-error": "EC2 failed to delete it",
    "client-error": "EC2 refused to delete it",
}
"""Reasons for snapshots that DeregisterImage did not delete, by its return code."""


class Lifecycle:
    """Changes of images that are no longer needed."""

    def __init__(self, client: Any, region: str) -> None:
        self._client = client
        self.region = region

    def own(self, *filters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the descriptions of this account's images that match the filters, disabled ones included."""
        with translating(f"listing the images of this account in {self.region}"):
            pages = self._client.get_paginator("describe_images").paginate(
                Owners=["self"], Filters=list(filters), IncludeDisabled=True, PaginationConfig={"PageSize": PAGE}
            )
            return [image for page in pages for image in page["Images"]]

    def built_on(self, images: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the descriptions of this account's images that were built on one of these, or copied from it."""
        found: dict[str, Mapping[str, Any]] = {}
        for chunk in chunks(images):
            for name in (f"tag:{tagging.SOURCE}", "source-image-id"):
                found |= {str(image["ImageId"]): image for image in self.own({"Name": name, "Values": chunk})}
        return list(found.values())

    def deprecate(self, image: str, now: datetime) -> datetime:
        """Deprecate an image from the next minute on, and return that time: EC2 takes no time in the past."""
        at = (now + timedelta(minutes=1)).replace(second=0, microsecond=0)
        with translating(f"deprecating {image} in {self.region}"):
            self._client.enable_image_deprecation(ImageId=image, DeprecateAt=at)
        return at

    def disable(self, image: str) -> None:
        """Disable an image. It loses its launch permissions."""
        with translating(f"disabling {image} in {self.region}"):
            self._client.disable_image(ImageId=image)

    def enable(self, image: str) -> None:
        """Make a disabled image available again, without its former launch permissions."""
        with translating(f"enabling {image} in {self.region}"):
            self._client.enable_image(ImageId=image)

    def deregister_with_snapshots(self, image: str) -> dict[str, str]:
        """Deregister an image and delete its snapshots. Return a reason for each snapshot; empty if it is deleted.

        EC2 leaves a snapshot that another image uses.
        """
        with translating(f"deregistering {image} in {self.region}"):
            answer = self._client.deregister_image(ImageId=image, DeleteAssociatedSnapshots=True)
        return {
            str(row["SnapshotId"]): ""
            if row.get("ReturnCode") == "success"
            else SNAPSHOT_RESULTS.get(str(row.get("ReturnCode")), str(row.get("ReturnCode")))
            for row in answer.get("DeleteSnapshotResults", ())
        }

    def ancestry(self, image: str) -> Iterator[tuple[str, str, str]]:
        """Yield the images that an image comes from, nearest first: id, region and owner alias, as far as EC2 knows."""
        with translating(f"reading the ancestry of {image} in {self.region}"):
            entries = self._client.get_image_ancestry(ImageId=image)["ImageAncestryEntries"]
        owners = {str(entry["ImageId"]): str(entry.get("ImageOwnerAlias") or "") for entry in entries}
        for entry in entries:
            if source := entry.get("SourceImageId"):
                yield str(source), str(entry.get("SourceImageRegion") or ""), owners.get(str(source), "")
