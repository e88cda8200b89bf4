"""Make, describe and delete volumes, and attach them to instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency, lookup, product_codes
from imagepipe.local.aws.ec2.instances import disks, jobs
from imagepipe.local.aws.ec2.instances.describe import OPERATOR
from imagepipe.local.aws.ec2.volumes import block_devices, encryption
from imagepipe.local.aws.moto.catalogue import zone_id, zones
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, invalid, missing
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.protocol.times import whole_second
from imagepipe.local.aws.state.records import AttachedVolume, DiskSpec, Instance, Volume

GETTERS: Mapping[str, Getter] = {
    **filters.by_attribute("create-time", "encrypted", "snapshot-id"),
    "availability-zone": lambda row: row.zone,
    "size": lambda row: row.size_gib,
    "status": lambda row: row.state,
    "volume-id": lambda row: row.id,
    "volume-type": lambda row: row.type,
    "attachment.instance-id": lambda row: row.instance_id,
}


def create_volume(backend: Backend, call: Call) -> Mapping[str, Any]:
    before = idempotency.earlier_result(backend, call)
    if before is not None:
        return to_api(backend, backend.database.volumes[before[0]])
    params = call.params
    zone = params.get("AvailabilityZone")
    if not zone:
        raise missing("availabilityZone")
    if zone not in zones(call.region):
        raise AwsError("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
    snapshot_id = params.get("SnapshotId")
    snapshot = lookup.check_completed(lookup.snapshot(backend, call, snapshot_id)) if snapshot_id else None
    if snapshot is None and not params.get("Size"):
        raise missing("size or snapshotId")
    if params.get("KmsKeyId") and not params.get("Encrypted"):
        raise encryption.key_without_encryption()
    size = params.get("Size") or (snapshot.size_gib if snapshot else 0)
    if snapshot is not None and size < snapshot.size_gib:
        raise invalid(f"The specified volume size {size} is smaller than the size of snapshot '{snapshot.id}'.")
    disk = DiskSpec(
        device="",
        snapshot_id=snapshot.id if snapshot else None,
        size_gib=size,
        type=params.get("VolumeType") or "gp2",
        iops=params.get("Iops"),
        throughput=params.get("Throughput"),
        encrypted=bool(params.get("Encrypted")),
        kms_key_id=params.get("KmsKeyId"),
    )
    tags = tagging.parse_specifications(params, "volume")["volume"]
    volume = new_volume(backend, call, block_devices.with_defaults(disk, snapshot), zone=zone, tags=tags)
    backend.database.put(volume)
    idempotency.remember(backend, call, [volume.id])
    backend.submit_later(volume.id, jobs.create_volume, volume.id)
    return to_api(backend, volume)


def new_volume(backend: Backend, call: Call, disk: DiskSpec, *, zone: str, tags: Mapping[str, str]) -> Volume:
    """Make the record of a volume that is still to be created, with the encryption that its snapshot and key imply."""
    snapshot = backend.database.snapshots.get(disk.snapshot_id or "")
    encrypted = encryption.for_volume(backend, call, is_asked=disk.encrypted, key=disk.kms_key_id, snapshot=snapshot)
    return Volume(
        id=new_id("vol"),
        account=call.account,
        region=call.region,
        tags=tags,
        zone=zone,
        size_gib=disk.size_gib,
        type=disk.type,
        iops=block_devices.effective_iops(disk),
        throughput=disk.throughput,
        snapshot_id=disk.snapshot_id,
        encrypted=encrypted.is_on,
        kms_key_id=encrypted.kms_key_id,
        product_codes=snapshot.product_codes if snapshot else (),
        fails_with=encrypted.problem,
        state="creating",
        create_time=backend.clock.now(),
    )


def to_api(backend: Backend, volume: Volume) -> dict[str, Any]:
    """Describe a volume as DescribeVolumes does."""
    return {
        "VolumeId": volume.id,
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": zone_id(volume.zone),
        "CreateTime": volume.create_time,
        "Encrypted": volume.encrypted,
        "KmsKeyId": volume.kms_key_id,
        "Size": volume.size_gib,
        "SnapshotId": volume.snapshot_id or "",
        "State": volume.state,
        "VolumeType": volume.type,
        "Iops": volume.iops,
        "Throughput": volume.throughput,
        "MultiAttachEnabled": False,
        "Operator": OPERATOR,
        "Attachments": attachments(backend, volume),
        "Tags": tagging.if_any(volume.tags),
    }


def attachments(backend: Backend, volume: Volume) -> list[dict[str, Any]]:
    instance = backend.database.instances.get(volume.instance_id or "")
    return [
        _attachment(instance, attached, attached.state)
        for attached in (instance.volumes if instance else ())
        if instance and attached.volume_id == volume.id
    ]


def _attachment(instance: Instance, attached: AttachedVolume, state: str) -> dict[str, Any]:
    return {
        "VolumeId": attached.volume_id,
        "InstanceId": instance.id,
        "Device": attached.device,
        "State": state,
        "AttachTime": attached.attach_time,
        "DeleteOnTermination": attached.delete_on_termination,
    }


def _changing(instance: Instance, attached: AttachedVolume, state: str) -> dict[str, Any]:
    """Describe an attachment as AttachVolume and DetachVolume do: EC2 answers before the state changes."""
    return {**_attachment(instance, attached, state), "DeleteOnTermination": None}


def describe_volumes(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = backend.database.volumes.owned(call.account, call.region)
    rows = lookup.named(backend, call, rows, lookup.volumes, "VolumeIds")
    getters = AnswerFilters("DescribeVolumes", partial(to_api, backend), GETTERS)
    shown, token = filters.page(rows, call.params, getters, ids="VolumeIds")
    return {"Volumes": [to_api(backend, row) for row in shown], "NextToken": token}


def describe_volume_status(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = backend.database.volumes.owned(call.account, call.region)
    rows = lookup.named(backend, call, rows, lookup.volumes, "VolumeIds")
    getters = AnswerFilters("DescribeVolumeStatus", _status)
    shown, token = filters.page(rows, call.params, getters, ids="VolumeIds")
    return {"VolumeStatuses": [_status(row) for row in shown], "NextToken": token}


def _status(volume: Volume) -> dict[str, Any]:
    """Describe the checks of a volume: those of a file that is there are passed."""
    word = "ok" if volume.state in ("available", "in-use") else "insufficient-data"
    check = "passed" if word == "ok" else word
    return {
        "VolumeId": volume.id,
        "AvailabilityZone": volume.zone,
        "AvailabilityZoneId": zone_id(volume.zone),
        "VolumeStatus": {
            "Status": word,
            "Details": [
                {"Name": "io-enabled", "Status": check},
                {"Name": "io-performance", "Status": "not-applicable"},
            ],
        },
        "Actions": [],
        "Events": [],
        "AttachmentStatuses": [],
    }


def describe_volume_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    volume = lookup.volume(backend, call, call.text("VolumeId"))
    match call.text("Attribute"):
        case "autoEnableIO":
            return {"VolumeId": volume.id, "AutoEnableIO": {"Value": False}}
        case "productCodes":
            return {"VolumeId": volume.id, "ProductCodes": product_codes.to_api(volume.product_codes)}
        case other:
            raise invalid(f"Value ({other}) for parameter attribute is invalid. Unknown attribute.")


def delete_volume(backend: Backend, call: Call) -> Mapping[str, Any]:
    volume = lookup.volume(backend, call, call.text("VolumeId"))
    if volume.instance_id:
        raise AwsError("VolumeInUse", f"Volume {volume.id} is currently attached to {volume.instance_id}")
    if volume.state not in ("available", "error"):
        raise AwsError("IncorrectState", f"Volume {volume.id} is {volume.state}, not available")
    backend.database.put(replace(volume, state="deleting"))
    backend.submit_later(volume.id, jobs.delete_volume, volume.id)
    return {}


def attach_volume(backend: Backend, call: Call) -> Mapping[str, Any]:
    volume = lookup.volume(backend, call, call.text("VolumeId"))
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    device = call.text("Device")
    if volume.state != "available":
        raise AwsError("IncorrectState" if not volume.instance_id else "VolumeInUse", f"{volume.id} is {volume.state}")
    if volume.zone != instance.zone:
        raise AwsError(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'",
        )
    if not block_devices.DEVICE.fullmatch(device):
        raise invalid(f"Value ({device}) for parameter device is invalid. {device} is not a valid EBS device name.")
    if any(attached.device == device for attached in instance.volumes):
        raise invalid(f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use")
    if instance.state not in ("running", "stopped"):
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if any(row.volume_id == volume.id and row.state == "pending" for row in backend.database.snapshots):
        # A job in the volume's own queue still reads its bytes; the machine would not wait for that queue.
        raise AwsError("IncorrectState", f"{volume.id} has a pending snapshot; attach it once that is completed")
    modification = backend.database.modifications.get(volume.id)
    if modification is not None and modification.state == "modifying":
        raise AwsError("IncorrectState", f"{volume.id} is being modified; attach it once that is in effect")
    attached = AttachedVolume(
        device=device,
        volume_id=volume.id,
        delete_on_termination=False,
        attach_time=whole_second(backend.clock.now()),
        state="attaching" if instance.state == "running" else "attached",
    )
    changed = replace(instance, volumes=(*instance.volumes, attached))
    backend.database.put(changed)
    backend.database.put(replace(volume, state="in-use", instance_id=instance.id))
    if attached.state == "attaching":
        backend.submit_later(instance.id, disks.plug, instance.id, volume.id)
    return _changing(changed, attached, "attaching")


def detach_volume(backend: Backend, call: Call) -> Mapping[str, Any]:
    volume = lookup.volume(backend, call, call.text("VolumeId"))
    instance = backend.database.instances.get(volume.instance_id or "")
    if instance is None or call.params.get("InstanceId", instance.id) != instance.id:
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the '{volume.state}' state.")
    [attached] = [item for item in instance.volumes if item.volume_id == volume.id]
    if call.params.get("Device", attached.device) != attached.device:
        raise AwsError("InvalidAttachment.NotFound", f"{volume.id} is attached at {attached.device}")
    if attached.state != "attached":
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the '{attached.state}' state.")
    if instance.state == "stopped":
        rest = tuple(item for item in instance.volumes if item.volume_id != volume.id)
        backend.database.put(replace(instance, volumes=rest))
        backend.database.put(replace(volume, state="available", instance_id=None))
        return _changing(instance, attached, "detaching")
    if instance.state != "running":
        raise AwsError("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if attached.device == instance.root_device:
        raise AwsError(
            "OperationNotPermitted", f"Unable to detach root volume '{volume.id}' from instance '{instance.id}'"
        )
    leaving = replace(attached, state="detaching")
    volumes = tuple(leaving if item == attached else item for item in instance.volumes)
    backend.database.put(replace(instance, volumes=volumes))
    backend.submit_later(instance.id, disks.unplug, instance.id, volume.id)
    return _attachment(instance, leaving, leaving.state)
