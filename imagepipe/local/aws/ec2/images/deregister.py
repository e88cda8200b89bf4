"""Deregister images, and delete their snapshots with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imagepipe.local.aws.authorization import policies
from imagepipe.local.aws.authorization.resources import use_request
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup, retention
from imagepipe.local.aws.ec2.images import ancestry, deregistered, protection
from imagepipe.local.aws.ec2.volumes import snapshots
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Image


def deregister_image(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Deregister the image, or move it to Recycle Bin if a retention rule matches it."""
    image = lookup.own_image(backend, call, call.text("ImageId"))
    protection.check_unprotected(backend, image)
    backend.database.remove(image)
    retention.recycle_image(backend, image)
    deregistered.remember(backend, image)
    ancestry.remember(backend, image)
    results = []
    if call.params.get("DeleteAssociatedSnapshots"):
        results = [
            {"SnapshotId": snapshot_id, "ReturnCode": _delete_snapshot(backend, call, snapshot_id)}
            for snapshot_id in _snapshot_ids([image])
        ]
    return {"Return": True, "DeleteSnapshotResults": results}


def _delete_snapshot(backend: Backend, call: Call, snapshot_id: str) -> str:
    """Delete the snapshot if nothing else uses it; return EC2's code for the result."""
    snapshot = backend.database.snapshots.get(snapshot_id)
    if snapshot is None:
        return "client-error"
    if snapshot_id in _snapshot_ids(backend.database.images.in_region(call.region)):
        return "skipped"
    delete = use_request(backend, call.with_action("DeleteSnapshot"), snapshot_id)
    if snapshot.account != call.account or not policies.allows(backend, call.access_key_id, delete):
        return "missing-permissions"
    snapshots.delete(backend, snapshot)
    return "success"


def _snapshot_ids(images: Iterable[Image]) -> Sequence[str]:
    return [disk.snapshot_id for image in images for disk in image.mappings if disk.snapshot_id]
