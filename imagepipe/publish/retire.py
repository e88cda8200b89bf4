"""Deregister an image and delete its snapshots or bundle, except data that another image uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Images, bundle_of, snapshots_of
from imagepipe.dataclass import dataclass
from imagepipe.errors import BundleError, CloudError
from imagepipe.publish import stored_bundle

NOT_ASKED = "pass --delete-data to delete it"


@dataclass(frozen=True, slots=True)
class Retired:
    """The result of retiring an image."""

    image: str
    name: str
    region: str
    deleted: tuple[str, ...] = ()
    """Deleted snapshots, or the location of the deleted bundle's manifest."""
    left: Mapping[str, str] = field(default_factory=dict)
    """Reason for each snapshot or bundle that was not deleted."""
    freed: str = ""
    """Size of the deleted data, as text. For snapshots, it is the size of their volumes, which is an upper limit."""


def find(images: Images, id_or_name: str) -> list[Mapping[str, Any]]:
    """Return this account's images in the region that have this id or exactly this name. Raises CloudError."""
    if id_or_name.startswith("ami-"):
        found = images.describe_many([id_or_name])
        owned = {image.id for image in images.own_named(str(next(iter(found.values()))["Name"]))} if found else set()
        if found and not owned:
            raise CloudError(
                f"{id_or_name} in {images.region} belongs to another account: only its owner may deregister it",
                code="AuthFailure",
            )
        return [image for image in found.values() if image["ImageId"] in owned]
    return list(images.describe_many([image.id for image in images.own_named(id_or_name)]).values())


def retire(ec2: Ec2, image: Mapping[str, Any], *, deletes_data: bool) -> Retired:
    """Deregister an image, then delete its snapshots or bundle if asked; shared ones are kept. Raises CloudError.

    The image is deregistered first: EC2 refuses to delete a snapshot that an image uses, and an image without its parts
    cannot be launched.
    """
    if (location := bundle_of(image)) is not None:
        return _retire_bundle(ec2, image, location, deletes_data=deletes_data)
    return _retire_ebs(ec2, image, deletes_data=deletes_data)


def _retire_ebs(ec2: Ec2, image: Mapping[str, Any], *, deletes_data: bool) -> Retired:
    id, name, region = str(image["ImageId"]), str(image.get("Name", "")), ec2.region
    snapshots = snapshots_of(image)
    sizes = {snapshot: int(seen["VolumeSize"]) for snapshot, seen in ec2.snapshots.describe_many(snapshots).items()}
    ec2.images.deregister(id)
    if not deletes_data:
        return Retired(id, name, region, left=dict.fromkeys(sizes, NOT_ASKED))
    deleted: list[str] = []
    left: dict[str, str] = {}
    for snapshot in sizes:
        if users := ec2.images.own_made_of(snapshot):
            left[snapshot] = f"also used by {', '.join(image.id for image in users)}"
            continue
        try:
            ec2.snapshots.delete(snapshot)
        except CloudError as error:
            left[snapshot] = str(error)
        else:
            deleted.append(snapshot)
    freed = f"{sum(sizes[snapshot] for snapshot in deleted)} GiB of volumes"
    return Retired(id, name, region, tuple(deleted), left, freed)


def _retire_bundle(ec2: Ec2, image: Mapping[str, Any], location: str, *, deletes_data: bool) -> Retired:
    """Retire an instance-store image. The manifest is read first; a bundle that cannot be read is kept."""
    id, name, region = str(image["ImageId"]), str(image.get("Name", "")), ec2.region
    bundle, why = _look_up(ec2, location) if deletes_data else (None, NOT_ASKED)
    ec2.images.deregister(id)
    if bundle is None:
        return Retired(id, name, region, left={location: why})
    try:
        if users := stored_bundle.users(ec2, bundle, but=id):
            return Retired(id, name, region, left={location: f"also used by {', '.join(users)}"})
        stored_bundle.delete(ec2.s3, bundle)
    except CloudError as error:
        return Retired(id, name, region, left={location: str(error)})
    return Retired(id, name, region, (location,), freed=bundle.describe())


def _look_up(ec2: Ec2, location: str) -> tuple[stored_bundle.InBucket | None, str]:
    """Return the bundle, or the reason why its objects are unknown."""
    try:
        return stored_bundle.look_up(ec2.s3, location), ""
    except (CloudError, BundleError) as error:
        return None, f"its manifest cannot be read, so its parts are unknown: {error}"
