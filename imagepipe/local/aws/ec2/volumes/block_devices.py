"""Block device mappings: merge those of a request into those of an image, and check them as EC2 does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid, missing
from imagepipe.local.aws.state.records import DiskSpec, Snapshot

# EC2 user guide, "Device names for volumes": names that are recommended, or reserved for roots, in both spellings.
DEVICE = re.compile(r"(/dev/)?(sd[a-z][1-9]?\d?|xvd[a-z]{1,2}\d?|hd[a-z]\d?)")

EPHEMERAL = re.compile(r"ephemeral([0-9]|1[0-9]|2[0-3])")  # EC2 user guide: instance store volumes 0 to 23


@dataclass(frozen=True, slots=True)
class Range:
    """Limits of a volume type (EBS user guide, "Amazon EBS volume types")."""

    size_gib: tuple[int, int]
    iops: tuple[int, int] | None = None
    needs_iops: bool = False
    default_iops: int | None = None
    iops_per_gib: int | None = None
    throughput: tuple[int, int] | None = None


TYPES: Mapping[str, Range] = {
    "gp2": Range((1, 16384)),
    "gp3": Range((1, 65536), (3000, 80000), default_iops=3000, iops_per_gib=500, throughput=(125, 2000)),
    "io1": Range((4, 16384), (100, 64000), needs_iops=True, iops_per_gib=50),
    "io2": Range((4, 65536), (100, 256000), needs_iops=True, iops_per_gib=1000),
    "st1": Range((125, 16384)),
    "sc1": Range((125, 16384)),
    "standard": Range((1, 1024)),
}


def merge(
    mappings: Iterable[Mapping[str, Any]],
    base: Sequence[DiskSpec],
    find: Callable[[str], Snapshot],
    *,
    root: str | None = None,
    default_type: str = "gp2",
) -> tuple[DiskSpec, ...]:
    """Merge the request's mappings into those of the base, by device.

    `find` gives the snapshot of an id or raises; `root` is the device whose snapshot a launch cannot change.
    Raises AwsError.
    """
    disks = {disk.device: disk for disk in base}
    seen: set[str] = set()
    for mapping in mappings:
        device = str(mapping.get("DeviceName") or "")
        if not device:
            raise missing("deviceName")
        if not DEVICE.fullmatch(device):
            raise AwsError("InvalidBlockDeviceMapping", f"Invalid device name {device}")
        if device in seen:
            raise AwsError(
                "InvalidBlockDeviceMapping", f"The device '{device}' is used in more than one block-device mapping"
            )
        seen.add(device)
        if "NoDevice" in mapping:
            if device == root:
                raise AwsError("InvalidBlockDeviceMapping", f"The root device '{device}' cannot be left out")
            if device not in disks:
                raise AwsError(
                    "InvalidBlockDeviceMapping", f"The device '{device}' to leave out is not mapped by the image"
                )
            del disks[device]
        elif mapping.get("VirtualName"):
            if not EPHEMERAL.fullmatch(str(mapping["VirtualName"])):
                raise invalid(f"Value ({mapping['VirtualName']}) for parameter virtualName is invalid.")
            disks[device] = DiskSpec(device=device, virtual_name=str(mapping["VirtualName"]))
        else:
            disks[device] = _disk(device, mapping.get("Ebs", {}), disks.get(device), find, root, default_type)
    return tuple(disks.values())


def _disk(
    device: str,
    ebs: Mapping[str, Any],
    old: DiskSpec | None,
    find: Callable[[str], Snapshot],
    root: str | None,
    default_type: str,
) -> DiskSpec:
    if old is not None and old.virtual_name:
        if ebs.get("SnapshotId"):  # EC2's answer, as github.com/hashicorp/packer/issues/2765 has it
            raise AwsError("InvalidBlockDeviceMapping", "snapshotId can only be modified on EBS devices")
        old = None
    snapshot_id = ebs.get("SnapshotId") or (old.snapshot_id if old else None)
    if old is not None and device == root and snapshot_id != old.snapshot_id:
        raise AwsError("InvalidBlockDeviceMapping", "snapshotId cannot be modified on root device")
    snapshot = find(snapshot_id) if snapshot_id else None
    kind = ebs.get("VolumeType") or (old.type if old else default_type)
    size = ebs.get("VolumeSize") or (old.size_gib if old else 0) or (snapshot.size_gib if snapshot else 0)
    if not size:
        raise missing("size or snapshotId")
    if ebs.get("KmsKeyId") and not ebs.get("Encrypted", old.encrypted if old else False):
        raise AwsError(
            "InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set."
        )
    if "Encrypted" in ebs and not ebs["Encrypted"] and snapshot is not None and snapshot.encrypted:
        raise AwsError(
            "InvalidBlockDeviceMapping", f"The volume of encrypted snapshot '{snapshot.id}' cannot be unencrypted"
        )
    same_type = old is not None and kind == old.type
    disk = DiskSpec(
        device=device,
        snapshot_id=snapshot_id,
        size_gib=size,
        type=kind,
        iops=ebs.get("Iops") or (old.iops if old and same_type else None),
        throughput=ebs.get("Throughput") or (old.throughput if old and same_type else None),
        encrypted=bool(ebs.get("Encrypted", old.encrypted if old else False)) or bool(snapshot and snapshot.encrypted),
        kms_key_id=ebs.get("KmsKeyId") or (old.kms_key_id if old else None),
        delete_on_termination=bool(ebs.get("DeleteOnTermination", old.delete_on_termination if old else True)),
    )
    return with_defaults(disk, snapshot)


def with_defaults(disk: DiskSpec, snapshot: Snapshot | None) -> DiskSpec:
    """Add the defaults of the volume type. Raises AwsError for values that the type does not allow."""
    kind = TYPES.get(disk.type)
    if kind is None:
        raise invalid(f"Value ({disk.type}) for parameter volumeType is invalid.")
    least, most = kind.size_gib
    if snapshot is not None and disk.size_gib < snapshot.size_gib:
        raise AwsError(
            "InvalidBlockDeviceMapping",
            f"Volume of size {disk.size_gib}GB is smaller than snapshot '{snapshot.id}', "
            f"expect size>= {snapshot.size_gib}GB",
        )
    if not least <= disk.size_gib <= most:
        raise invalid(
            f"Volume of {disk.size_gib}GiB is not possible for type '{disk.type}': it is from {least} to {most} GiB."
        )
    _check_iops(disk, kind)
    if disk.throughput is not None:
        if kind.throughput is None:
            raise conflicting(f"The parameter throughput is not supported for {disk.type} volumes.")
        if not kind.throughput[0] <= disk.throughput <= kind.throughput[1]:
            raise invalid(f"Throughput of {disk.throughput} is not valid for {disk.type}: {kind.throughput}.")
    return replace(
        disk,
        iops=disk.iops or kind.default_iops,
        throughput=disk.throughput or (kind.throughput[0] if kind.throughput else None),
    )


def effective_iops(disk: DiskSpec) -> int | None:
    """Return the IOPS that EC2 describes: those of a gp2 volume follow from its size."""
    return disk.iops or (max(100, min(16000, 3 * disk.size_gib)) if disk.type == "gp2" else None)


def _check_iops(disk: DiskSpec, kind: Range) -> None:
    if disk.iops is None:
        if kind.needs_iops:
            raise conflicting(f"The parameter iops must be specified for {disk.type} volumes.")
        return
    if kind.iops is None:
        raise conflicting(f"The parameter iops is not supported for {disk.type} volumes.")
    least, most = kind.iops
    if not least <= disk.iops <= most:
        raise invalid(f"Volume iops of {disk.iops} is not in the range of {disk.type}: {least} to {most}.")
    # The smallest number of IOPS is allowed at any size; a larger one is limited by the size.
    if kind.iops_per_gib and disk.iops > max(least, disk.size_gib * kind.iops_per_gib):
        raise invalid(
            f"Iops to volume size ratio of {disk.iops}/{disk.size_gib} is too high; maximum is {kind.iops_per_gib}."
        )


def to_api(disk: DiskSpec, *, with_snapshot: bool = True) -> dict[str, Any]:
    """Describe a mapping as DescribeImages does."""
    if disk.virtual_name:
        return {"DeviceName": disk.device, "VirtualName": disk.virtual_name}
    return {
        "DeviceName": disk.device,
        "Ebs": {
            "SnapshotId": disk.snapshot_id if with_snapshot else None,
            "VolumeSize": disk.size_gib,
            "VolumeType": disk.type,
            "Iops": disk.iops,
            "Throughput": disk.throughput,
            "Encrypted": disk.encrypted,
            "DeleteOnTermination": disk.delete_on_termination,
        },
    }
