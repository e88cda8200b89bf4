"""Take, copy, describe, share and delete snapshots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup, product_codes, retention
from imagepipe.local.aws.ec2.account_settings import UNBLOCKED, public_snapshots
from imagepipe.local.aws.ec2.images import jobs as image_jobs
from imagepipe.local.aws.ec2.instances import jobs as instance_jobs
from imagepipe.local.aws.ec2.sharing import added, audience, changed_users
from imagepipe.local.aws.ec2.volumes import encryption, modifications
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid, missing
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import Instance, Snapshot, Volume

GETTERS: Mapping[str, Getter] = {
    **filters.by_attribute("description", "encrypted", "start-time", "volume-id"),
    "owner-id": lambda row: row.account,
    "progress": lambda row: f"{row.progress}%",
    "snapshot-id": lambda row: row.id,
    "status": lambda row: row.state,
    "storage-tier": lambda row: "standard",
    "volume-size": lambda row: row.size_gib,
}


def create_snapshot(backend: Backend, call: Call) -> Mapping[str, Any]:
    volume = lookup.volume(backend, call, call.text("VolumeId"))
    if volume.state not in ("available", "in-use"):
        raise AwsError("IncorrectState", f"Volume {volume.id} is {volume.state}")
    tags = tagging.parse_specifications(call.params, "snapshot")["snapshot"]
    volume = modifications.with_target(backend, volume)
    snapshot = new_snapshot(backend, volume, str(call.params.get("Description", "")), tags)
    _take_later(backend, call, instance_jobs.queue_of(volume), [snapshot])
    return to_api(snapshot)


def create_snapshots(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Take snapshots of all volumes of an instance, at one moment."""
    specification = call.params["InstanceSpecification"]
    if not specification.get("InstanceId"):
        raise missing("InstanceSpecification.InstanceId")
    instance = lookup.instance(backend, call, specification["InstanceId"])
    if instance.state not in ("running", "stopped", "stopping"):
        raise AwsError("IncorrectInstanceState", f"The instance {instance.id} is {instance.state}")
    tags = tagging.parse_specifications(call.params, "snapshot")["snapshot"]
    copied = call.params.get("CopyTagsFromSource")
    if copied not in (None, "volume"):
        raise invalid(f"Value ({copied}) for parameter copyTagsFromSource is invalid.")
    made = []
    for volume in _specified_volumes(backend, instance, specification):
        own = tagging.merge(volume.tags if copied else {}, tags)
        made.append(new_snapshot(backend, volume, str(call.params.get("Description", "")), own))
    if not made:
        raise conflicting(f"Every volume of {instance.id} is excluded")
    _take_later(backend, call, instance.id, made)
    return {"Snapshots": [to_api(snapshot) for snapshot in made]}


def _specified_volumes(backend: Backend, instance: Instance, specification: Mapping[str, Any]) -> Iterable[Volume]:
    excluded = set(specification.get("ExcludeDataVolumeIds", []))
    unknown = excluded - {attached.volume_id for attached in instance.volumes}
    if unknown:
        raise invalid(f"Volume {sorted(unknown)[0]} to exclude is not attached to {instance.id}")
    for attached in instance.volumes:
        is_root = attached.device == instance.root_device
        if not (is_root and specification.get("ExcludeBootVolume")) and attached.volume_id not in excluded:
            yield modifications.with_target(backend, backend.database.volumes[attached.volume_id])


def new_snapshot(backend: Backend, volume: Volume | Snapshot, description: str, tags: Mapping[str, str]) -> Snapshot:
    """Make the record of a snapshot that is still to be taken of a volume, or copied of another snapshot."""
    return Snapshot(
        id=new_id("snap"),
        account=volume.account,
        region=volume.region,
        tags=tags,
        volume_id=volume.id,
        size_gib=volume.size_gib,
        state="pending",
        description=description,
        start_time=backend.clock.now(),
        encrypted=volume.encrypted,
        kms_key_id=volume.kms_key_id,
        product_codes=volume.product_codes,
    )


def _put(backend: Backend, call: Call, snapshot: Snapshot) -> None:
    backend.faults.bind(snapshot.id, call.action, call.params, "fail", "hang")
    backend.database.put(snapshot)


def _take_later(backend: Backend, call: Call, queue: str, snapshots: Iterable[Snapshot]) -> None:
    for snapshot in snapshots:
        _put(backend, call, snapshot)
    backend.submit_later(queue, image_jobs.take_snapshots, tuple(snapshot.id for snapshot in snapshots))


def copy_snapshot(backend: Backend, call: Call) -> Mapping[str, Any]:
    there = lookup.in_source_region(call)
    source = lookup.check_completed(lookup.snapshot(backend, there, call.text("SourceSnapshotId")))
    snapshot = new_copy(
        backend,
        call,
        source,
        description=str(call.params.get("Description", "")),
        tags=tagging.parse_specifications(call.params, "snapshot")["snapshot"],
    )
    _put(backend, call, snapshot)
    backend.database.later(partial(image_jobs.link, backend, [snapshot]))
    backend.submit_later(snapshot.id, image_jobs.finish_copy, snapshot.id)
    return {"SnapshotId": snapshot.id, "Tags": tagging.if_any(snapshot.tags)}


def new_copy(backend: Backend, call: Call, source: Snapshot, *, description: str, tags: Mapping[str, str]) -> Snapshot:
    """Make the record of a copy in this call's region. Raises AwsError."""
    encrypted = encryption.for_copy(backend, call, source)
    return replace(
        new_snapshot(backend, source, description, tags),
        account=call.account,
        region=call.region,
        volume_id="vol-ffffffff",  # EC2's own stand-in for a copy's volume
        encrypted=encrypted.is_on,
        kms_key_id=encrypted.kms_key_id,
        fails_with=encrypted.problem,
        copied_from=source.id,
    )


def to_api(snapshot: Snapshot) -> dict[str, Any]:
    """Describe a snapshot as DescribeSnapshots does."""
    return {
        "SnapshotId": snapshot.id,
        "VolumeId": snapshot.volume_id,
        "VolumeSize": snapshot.size_gib,
        "State": snapshot.state,
        "StateMessage": snapshot.message or None,
        "Progress": f"{snapshot.progress}%",
        "Description": snapshot.description,
        "StartTime": snapshot.start_time,
        "CompletionTime": snapshot.completion_time,
        "OwnerId": snapshot.account,
        "OwnerAlias": None,
        "Encrypted": snapshot.encrypted,
        "KmsKeyId": snapshot.kms_key_id,
        "StorageTier": "standard",
        "Tags": tagging.if_any(snapshot.tags),
    }


def describe_snapshots(backend: Backend, call: Call) -> Mapping[str, Any]:
    params = call.params
    rows = [
        row for row in backend.database.snapshots.in_region(call.region) if lookup.may_use_snapshot(backend, call, row)
    ]
    rows = lookup.named(backend, call, rows, lookup.snapshots, "SnapshotIds")
    if params.get("OwnerIds"):
        owners = audience(call, params["OwnerIds"])
        rows = [row for row in rows if row.account in owners]
    if params.get("RestorableByUserIds"):
        users = audience(call, params["RestorableByUserIds"])
        rows = [row for row in rows if users & {row.account, *row.users}]
    getters = AnswerFilters("DescribeSnapshots", to_api, GETTERS)
    shown, token = filters.page(rows, params, getters, ids="SnapshotIds")
    return {"Snapshots": [_with_size(backend, row) for row in shown], "NextToken": token}


def _with_size(backend: Backend, snapshot: Snapshot) -> dict[str, Any]:
    """Describe a snapshot with the size of its blocks, which EC2 shows once it is completed."""
    size = backend.disks.snapshot_bytes(snapshot.id) if snapshot.state == "completed" else None
    return {**to_api(snapshot), "FullSnapshotSizeInBytes": size}


def delete_snapshot(backend: Backend, call: Call) -> Mapping[str, Any]:
    snapshot = lookup.own_snapshot(backend, call, call.text("SnapshotId"))
    for image in backend.database.images.in_region(call.region):
        if any(disk.snapshot_id == snapshot.id for disk in image.mappings):
            raise AwsError("InvalidSnapshot.InUse", f"The snapshot {snapshot.id} is currently in use by {image.id}")
    delete(backend, snapshot)
    return {}


def delete(backend: Backend, snapshot: Snapshot) -> None:
    """Delete a snapshot, or move it to Recycle Bin if a retention rule matches it."""
    if retention.recycle_snapshot(backend, snapshot):
        backend.database.remove(snapshot)
    else:
        remove(backend, snapshot)


def remove(backend: Backend, snapshot: Snapshot) -> None:
    """Delete the record of a snapshot, and then its bytes. If it is still being taken, its job deletes the bytes."""
    backend.database.remove(snapshot)
    backend.database.later(partial(backend.disks.delete_snapshot, snapshot.id))


def describe_snapshot_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    snapshot = lookup.own_snapshot(backend, call, call.text("SnapshotId"))
    attribute = call.text("Attribute")
    if attribute == "productCodes":
        return {"SnapshotId": snapshot.id, "ProductCodes": product_codes.to_api(snapshot.product_codes)}
    if attribute != "createVolumePermission":
        raise invalid(f"Value ({attribute}) for parameter attribute is invalid. Unknown attribute.")
    permissions = [{"Group": "all"} if user == "all" else {"UserId": user} for user in snapshot.users]
    return {"SnapshotId": snapshot.id, "CreateVolumePermissions": permissions}


def modify_snapshot_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    snapshot = lookup.own_snapshot(backend, call, call.text("SnapshotId"))
    users = changed_users(snapshot.users, call.params, "CreateVolumePermission", groups="GroupNames")
    newly = added(call.params, "CreateVolumePermission", groups="GroupNames")
    if newly and encryption.is_aws_managed(backend, snapshot):
        raise AwsError("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
    if "all" in newly and snapshot.encrypted:
        raise AwsError("OperationNotPermitted", "Encrypted snapshots cannot be shared publicly")
    if "all" in newly and public_snapshots(backend, snapshot.account, snapshot.region) != UNBLOCKED:
        # The code is assumed, by analogy with images: no description of it was found.
        raise AwsError(
            "OperationNotPermitted",
            "You can't publicly share this snapshot because block public access for snapshots is enabled for this "
            "account in this Region.",
        )
    backend.database.put(replace(snapshot, users=users))
    return {}


def reset_snapshot_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    snapshot = lookup.own_snapshot(backend, call, call.text("SnapshotId"))
    if call.text("Attribute") != "createVolumePermission":
        raise invalid("Only createVolumePermission can be reset")
    backend.database.put(replace(snapshot, users=()))
    return {}
