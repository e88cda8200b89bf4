"""List and restore the images and snapshots in Recycle Bin, whose tags can be changed there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.images.create import check_free_name
from imagepipe.local.aws.ec2.volumes import snapshots
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol.errors import AwsError, invalid
from imagepipe.local.aws.protocol.ids import check_id, not_found
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.database import Table
from imagepipe.local.aws.state.records import RecycledImage, RecycledSnapshot

MAX_IDS = 20  # API reference, ListImagesInRecycleBin; assumed for snapshots
R = TypeVar("R", RecycledImage, RecycledSnapshot)


def list_images_in_recycle_bin(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = _named(backend, call, backend.database.recycled_images, call.params.get("ImageIds", []), "ami")
    shown, token = filters.page(rows, {**call.params, "Filters": ()}, {}, least=1)
    return {"Images": [_image_to_api(row) for row in shown], "NextToken": token}


def list_snapshots_in_recycle_bin(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = _named(backend, call, backend.database.recycled_snapshots, call.params.get("SnapshotIds", []), "snap")
    shown, token = filters.page(rows, {**call.params, "Filters": ()}, {})
    return {"Snapshots": [_snapshot_to_api(row) for row in shown], "NextToken": token}


def restore_image_from_recycle_bin(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Restore an image with its tags and launch permissions. Its snapshots must have been restored before."""
    database = backend.database
    [row] = _named(backend, call, database.recycled_images, [call.text("ImageId")], "ami")
    check_free_name(backend, call.account, call.region, row.image.name)
    missing = [
        disk.snapshot_id
        for disk in row.image.mappings
        if disk.snapshot_id and database.snapshots.get(disk.snapshot_id) is None
    ]
    if missing:  # EC2 does not document the code: this is a guess
        raise AwsError(
            "InvalidSnapshot.NotFound",
            f"The snapshot '{missing[0]}' of {row.id} does not exist; restore it from Recycle Bin first.",
        )
    database.remove(row)
    database.put(replace(row.image, tags=row.tags))
    for table in (database.deregistered_images, database.ancestors):
        if (trace := table.get(row.id)) is not None:
            database.remove(trace)
    return {"Return": True}


def restore_snapshot_from_recycle_bin(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Restore a snapshot with its tags and permissions."""
    [row] = _named(backend, call, backend.database.recycled_snapshots, [call.text("SnapshotId")], "snap")
    backend.database.remove(row)
    backend.database.put(replace(row.snapshot, tags=row.tags))
    described = snapshots.to_api(row.snapshot)
    names = ("SnapshotId", "Description", "Encrypted", "OwnerId", "Progress", "StartTime", "State", "VolumeId")
    return {name: described[name] for name in (*names, "VolumeSize")}


def _named(backend: Backend, call: Call, table: Table[R], identifiers: list[str], prefix: str) -> list[R]:
    """Find the caller's resources in the bin that have these ids; all of them without ids. Raises AwsError."""
    if len(identifiers) > MAX_IDS:
        raise invalid(f"At most {MAX_IDS} IDs can be specified in a request; there are {len(identifiers)}")
    for identifier in identifiers:
        check_id(prefix, identifier)
    now = backend.clock.now()
    rows = {row.id: row for row in table.owned(call.account, call.region) if row.exits > now}
    if unknown := [each for each in identifiers if each not in rows]:
        raise not_found(prefix, unknown)
    return [rows[each] for each in dict.fromkeys(identifiers)] if identifiers else list(rows.values())


def _image_to_api(row: RecycledImage) -> dict[str, Any]:
    return {
        "ImageId": row.id,
        "Name": row.image.name,
        "Description": row.image.description or None,
        "RecycleBinEnterTime": row.entered,
        "RecycleBinExitTime": row.exits,
    }


def _snapshot_to_api(row: RecycledSnapshot) -> dict[str, Any]:
    return {
        "SnapshotId": row.id,
        "RecycleBinEnterTime": row.entered,
        "RecycleBinExitTime": row.exits,
        "Description": row.snapshot.description,
        "VolumeId": row.snapshot.volume_id,
    }
