"""An image deregistered, and then what it was made of deleted: never what another image is made of too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagepipe.cloud.ec2 import Ec2
from imagepipe.cloud.images import Images, bundle_of, snapshots_of
from imagepipe.errors import BundleError, CloudError
from imagepipe.publish import stored_bundle

NOT_ASKED = "not asked to delete it (--delete-data)"


@dataclass(frozen=True, slots=True)
class Retired:
    """What became of an image, and of its snapshots or its bundle."""

    image: str
    name: str
    region: str
    deleted: tuple[str, ...] = ()
    """Snapshots, or the location of a bundle's manifest."""
    left: Mapping[str, str] = field(default_factory=dict)
    """By snapshot or location, why it is still there."""
    freed: str = ""
    """How much was deleted: of snapshots the size of their volumes, what their storage cost at most."""


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


def retire(ec2: Ec2, image: Mapping[str, Any], *, deletes_data: bool) -> Retired:
    """Deregister it, then delete its snapshots or bundle if told to; those of another image stay. Raises CloudError.

    The image goes first: EC2 deletes no snapshot that an image is made of, and an image whose parts are gone would
    launch nothing.
    """
    if (location := bundle_of(image)) is not None:
        return _of_bundle(ec2, image, location, deletes_data=deletes_data)
    return _of_snapshots(ec2, image, deletes_data=deletes_data)


def _of_snapshots(ec2: Ec2, image: Mapping[str, Any], *, deletes_data: bool) -> Retired:
    id, name, region = str(image["ImageId"]), str(image.get("Name", "")), ec2.region
    snapshots = snapshots_of(image)
    sizes = {one: int(seen["VolumeSize"]) for one, seen in ec2.snapshots.describe_many(snapshots).items()}
    ec2.images.deregister(id)
    if not deletes_data:
        return Retired(id, name, region, left=dict.fromkeys(sizes, NOT_ASKED))
    deleted: list[str] = []
    left: dict[str, str] = {}
    for snapshot in sizes:
        if users := ec2.images.own_made_of(snapshot):
            left[snapshot] = f"{', '.join(one.id for one in users)} is made of it too"
            continue
        try:
            ec2.snapshots.delete(snapshot)
        except CloudError as error:
            left[snapshot] = str(error)
        else:
            deleted.append(snapshot)
    freed = f"{sum(sizes[one] for one in deleted)} GiB of volumes"
    return Retired(id, name, region, tuple(deleted), left, freed)


def _of_bundle(ec2: Ec2, image: Mapping[str, Any], location: str, *, deletes_data: bool) -> Retired:
    """The manifest is read while the image is there: a bundle that cannot be read is told, and stays."""
    id, name, region = str(image["ImageId"]), str(image.get("Name", "")), ec2.region
    bundle, why = _looked_up(ec2, location) if deletes_data else (None, NOT_ASKED)
    ec2.images.deregister(id)
    if bundle is None:
        return Retired(id, name, region, left={location: why})
    try:
        if users := stored_bundle.users(ec2, bundle, but=id):
            return Retired(id, name, region, left={location: f"{', '.join(users)} is made of it too"})
        stored_bundle.delete(ec2.s3, bundle)
    except CloudError as error:
        return Retired(id, name, region, left={location: str(error)})
    return Retired(id, name, region, (location,), freed=bundle.describe())


def _looked_up(ec2: Ec2, location: str) -> tuple[stored_bundle.InBucket | None, str]:
    """The bundle, or why it cannot be told which objects it has."""
    try:
        return stored_bundle.look_up(ec2.s3, location), ""
    except (CloudError, BundleError) as error:
        return None, f"its manifest cannot be read, so its parts are not known: {error}"
