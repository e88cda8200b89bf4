"""An image deregistered, and then what it was made of deleted: never what another image is made of too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagepipe.cloud.images import Images, snapshots_of
from imagepipe.errors import CloudError


@dataclass(frozen=True, slots=True)
class Retired:
    """What became of an image and of its snapshots."""

    image: str
    name: str
    region: str
    deleted: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)
    """By snapshot, why it is still there."""
    freed_gib: int = 0
    """Size of the volumes whose snapshots were deleted: what their storage cost at most."""


def find(images: Images, word: str) -> list[Mapping[str, Any]]:
    """This account's images in the region that have this id, or exactly this name. Raises CloudError."""
    if word.startswith("ami-"):
        found = images.describe_many([word])
        owned = {one.id for one in images.own_named(str(next(iter(found.values()))["Name"]))} if found else set()
        if found and not owned:
            raise CloudError(
                f"{word} in {images.region} is another account's: only its owner may deregister it",
                code="AuthFailure",
            )
        return [image for image in found.values() if image["ImageId"] in owned]
    return list(images.describe_many([one.id for one in images.own_named(word)]).values())


def retire(images: Images, image: Mapping[str, Any], *, deletes_data: bool) -> Retired:
    """Deregister it, then delete its snapshots if told to; those of another image stay. Raises CloudError.

    The image goes first: EC2 deletes no snapshot that an image is made of.
    """
    id, name, region = str(image["ImageId"]), str(image.get("Name", "")), images.region
    if image.get("RootDeviceType") == "instance-store" and deletes_data:
        raise CloudError(
            f"{id} in {region} is an instance-store image: its bundle in S3 ({image.get('ImageLocation')}) is not"
            " deleted yet",
            hint="deregister it without --delete-data, and delete its manifest and parts by hand",
        )
    snapshots = snapshots_of(image)
    sizes = {one: int(seen["VolumeSize"]) for one, seen in images.describe_snapshots(snapshots).items()}
    images.deregister(id)
    if not deletes_data:
        return Retired(id, name, region, left=dict.fromkeys(sizes, "not asked to delete it (--delete-data)"))
    deleted: list[str] = []
    left: dict[str, str] = {}
    for snapshot in sizes:
        if users := images.own_made_of(snapshot):
            left[snapshot] = f"{', '.join(one.id for one in users)} is made of it too"
            continue
        try:
            images.delete_snapshot(snapshot)
        except CloudError as error:
            left[snapshot] = str(error)
        else:
            deleted.append(snapshot)
    return Retired(id, name, region, tuple(deleted), left, sum(sizes[one] for one in deleted))
