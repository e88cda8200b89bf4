"""Find the resources that a request names; refuse malformed and unknown ids, and those of others, as EC2 does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.account_settings import ALL_SHARING, public_snapshots
from imagepipe.local.aws.ec2.images import deregistered
from imagepipe.local.aws.ec2.region_setup import base_image_id, name_of_base
from imagepipe.local.aws.moto.catalogue import regions
from imagepipe.local.aws.moto.parameters import parameter_value
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.ids import check_id, not_found
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import (
    DeregisteredImage,
    Image,
    Instance,
    KeyPair,
    Record,
    SecurityGroup,
    Snapshot,
    Volume,
)

R = TypeVar("R", bound=Record)
RESOLVE = "resolve:ssm:"
FindAll = Callable[[Backend, Call, Sequence[str]], list[R]]
FindOne = Callable[[Backend, Call, str], R]


def _is_own(backend: Backend, call: Call, record: Record) -> bool:
    return record.account == call.account


def may_use_snapshot(backend: Backend, call: Call, snapshot: Snapshot) -> bool:
    """Tell if the caller may make volumes of a snapshot."""
    if snapshot.account == call.account or call.account in snapshot.users:
        return True
    hidden = public_snapshots(backend, snapshot.account, snapshot.region) == ALL_SHARING
    return "all" in snapshot.users and not hidden


def may_launch(backend: Backend, call: Call, image: Image | DeregisteredImage) -> bool:
    """Tell if the caller may launch an image: its own, or one that is shared with it or its organization."""
    return image.account == call.account or not backend.accounts.names_of(call.account).isdisjoint(image.users)


def _finders(
    prefix: str, kind: type[R], is_visible: Callable[[Backend, Call, R], bool] = _is_own
) -> tuple[FindAll[R], FindOne[R]]:
    """Make the functions that find several records, and one, by their ids."""

    def find_all(backend: Backend, call: Call, identifiers: Sequence[str]) -> list[R]:
        for identifier in identifiers:
            check_id(prefix, identifier)
        rows = [(each, backend.database.table(kind).get(each)) for each in dict.fromkeys(identifiers)]
        found = {
            each: row for each, row in rows if row and row.region == call.region and is_visible(backend, call, row)
        }
        if unknown := [each for each, _ in rows if each not in found]:
            raise not_found(prefix, unknown)
        return list(found.values())

    def find_one(backend: Backend, call: Call, identifier: str) -> R:
        [found] = find_all(backend, call, [identifier])
        return found

    return find_all, find_one


# Each finds records that the caller may see: several by their ids, or one.
instances, instance = _finders("i", Instance)
volumes, volume = _finders("vol", Volume)
snapshots, snapshot = _finders("snap", Snapshot, may_use_snapshot)
_registered_images, _registered_image = _finders("ami", Image, may_launch)
_, group = _finders("sg", SecurityGroup)


def _was_deregistered(backend: Backend, call: Call, identifier: str) -> bool:
    found = deregistered.find(backend, identifier)
    return found is not None and found.region == call.region and may_launch(backend, call, found)


def images(backend: Backend, call: Call, identifiers: Sequence[str]) -> list[Image]:
    """Find the images with these ids. Recently deregistered ones are left out, and are no error."""
    wanted = [each for each in identifiers if not _was_deregistered(backend, call, each)]
    return _registered_images(backend, call, wanted)


def image(backend: Backend, call: Call, identifier: str) -> Image:
    """Find the image with this id. Raises AwsError, with a code of its own if it was deregistered recently."""
    if _was_deregistered(backend, call, identifier):
        raise AwsError("InvalidAMIID.Unavailable", f"The image ID '{identifier}' is no longer available")
    return _registered_image(backend, call, identifier)


def _own(find: FindOne[R], kind: str) -> FindOne[R]:
    """Restrict a function that also finds shared resources to the caller's own."""

    def find_own(backend: Backend, call: Call, identifier: str) -> R:
        found = find(backend, call, identifier)
        if not _is_own(backend, call, found):
            raise AwsError("AuthFailure", f"Not authorized for {kind}:{identifier}", status=403)
        return found

    return find_own


own_snapshot = _own(snapshot, "snapshot")
own_image = _own(image, "image")


def check_completed(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot. Raises AwsError unless it is completed."""
    if snapshot.state != "completed":
        raise AwsError("IncorrectState", f"Snapshot {snapshot.id} is in invalid state - {snapshot.state}")
    return snapshot


def check_available(image: Image) -> Image:
    """Return the image. Raises AwsError unless it is available."""
    if image.state != "available":
        raise AwsError("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available: it is {image.state}")
    return image


def in_source_region(call: Call) -> Call:
    """Return a copy's call with the region of the source in place of its own. Raises AwsError for an unknown region."""
    region = call.text("SourceRegion")
    if region not in regions():
        raise invalid(f"Value ({region}) for parameter sourceRegion is invalid.")
    return replace(call, region=region)


def named(backend: Backend, call: Call, rows: Iterable[R], find: FindAll[R], parameter: str) -> list[R]:
    """Return the rows whose ids the parameter of the request names; all of them without it. Raises AwsError."""
    wanted = {found.id for found in find(backend, call, call.params.get(parameter, []))}
    return [row for row in rows if not wanted or row.id in wanted]


def key_pair(backend: Backend, call: Call, name: str) -> KeyPair:
    """Find the caller's key pair of this name. Raises AwsError."""
    for pair in backend.database.key_pairs.owned(call.account, call.region):
        if pair.name == name:
            return pair
    raise AwsError("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")


def image_id(backend: Backend, call: Call) -> str:
    """Return the id of a launch's image; `resolve:ssm:NAME` names a parameter (EC2 API reference, RunInstances)."""
    text = call.text("ImageId")
    if not text.startswith(RESOLVE):
        return text
    name = text.removeprefix(RESOLVE)
    if name == name_of_base(backend):
        return base_image_id(backend.base, call.region)
    value = parameter_value(backend.moto, call.account, call.region, name)
    if value is None:  # EC2's code for it is not documented: this is a guess
        raise invalid(f"Value ({text}) for parameter imageId is invalid. The parameter {name} does not exist.")
    return value
