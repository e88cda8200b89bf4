"""Finding what a request names: malformed ids, unknown ids and other people's things are refused as on EC2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.account_settings import ALL_SHARING, public_snapshots
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.ids import check_id, not_found
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.database import Table
from imagepipe.local.aws.state.records import Image, Instance, Record, SecurityGroup, Snapshot, Volume

R = TypeVar("R", bound=Record)


def _all(
    table: Table[R], prefix: str, call: Call, identifiers: Sequence[str], is_visible: Callable[[R], bool]
) -> list[R]:
    for identifier in identifiers:
        check_id(prefix, identifier)
    found, unknown = [], []
    for identifier in dict.fromkeys(identifiers):
        record = table.get(identifier)
        if record is None or record.region != call.region or not is_visible(record):
            unknown.append(identifier)
        else:
            found.append(record)
    if unknown:
        raise not_found(prefix, unknown)
    return found


def _single(find: Callable[[Backend, Call, Sequence[str]], list[R]]) -> Callable[[Backend, Call, str], R]:
    """Make the function that finds one record, of one that finds several."""

    def find_one(backend: Backend, call: Call, identifier: str) -> R:
        [found] = find(backend, call, [identifier])
        return found

    return find_one


def instances(backend: Backend, call: Call, identifiers: Sequence[str]) -> list[Instance]:
    """Find the caller's instances of these ids."""
    return _all(backend.database.instances, "i", call, identifiers, lambda row: row.account == call.account)


instance = _single(instances)
"""Find the caller's instance of this id."""


def volumes(backend: Backend, call: Call, identifiers: Sequence[str]) -> list[Volume]:
    """Find the caller's volumes of these ids."""
    return _all(backend.database.volumes, "vol", call, identifiers, lambda row: row.account == call.account)


volume = _single(volumes)
"""Find the caller's volume of this id."""


def may_use_snapshot(backend: Backend, call: Call, snapshot: Snapshot) -> bool:
    """Tell if the caller may make volumes of a snapshot."""
    if snapshot.account == call.account or call.account in snapshot.users:
        return True
    hidden = public_snapshots(backend, snapshot.account, snapshot.region) == ALL_SHARING
    return "all" in snapshot.users and not hidden


def snapshots(backend: Backend, call: Call, identifiers: Sequence[str]) -> list[Snapshot]:
    """Find snapshots of these ids that the caller may use."""
    return _all(backend.database.snapshots, "snap", call, identifiers, lambda row: may_use_snapshot(backend, call, row))


snapshot = _single(snapshots)
"""Find the snapshot of this id, if the caller may use it."""


def own_snapshot(backend: Backend, call: Call, identifier: str) -> Snapshot:
    """Find the caller's own snapshot of this id."""
    found = snapshot(backend, call, identifier)
    if found.account != call.account:
        raise AwsError("AuthFailure", f"Not authorized for snapshot:{identifier}", status=403)
    return found


def may_launch(backend: Backend, call: Call, image: Image) -> bool:
    """Tell if the caller may launch an image: its own, or one that is shared with it or its organization."""
    return image.account == call.account or not backend.accounts.names_of(call.account).isdisjoint(image.users)


def images(backend: Backend, call: Call, identifiers: Sequence[str]) -> list[Image]:
    """Find images of these ids that the caller may launch."""
    return _all(backend.database.images, "ami", call, identifiers, lambda row: may_launch(backend, call, row))


image = _single(images)
"""Find the image of this id, if the caller may launch it."""


def own_image(backend: Backend, call: Call, identifier: str) -> Image:
    """Find the caller's own image of this id."""
    found = image(backend, call, identifier)
    if found.account != call.account:
        raise AwsError("AuthFailure", f"Not authorized for image:{identifier}", status=403)
    return found


def group(backend: Backend, call: Call, identifier: str) -> SecurityGroup:
    """Find the caller's security group of this id."""
    [found] = _all(backend.database.groups, "sg", call, [identifier], lambda row: row.account == call.account)
    return found
