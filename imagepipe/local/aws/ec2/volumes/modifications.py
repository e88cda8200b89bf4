"""Modify volumes: a larger size, another type, other IOPS and throughput, also while an instance uses them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances import jobs
from imagepipe.local.aws.ec2.instances.disks import disk_of
from imagepipe.local.aws.ec2.volumes import block_devices
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import DiskSpec, Modification, Volume
from imagepipe.local.host.errors import MachineError

log = logging.getLogger(__name__)

DAY = timedelta(hours=24)
MOST_IN_A_DAY = 4  # EC2 API reference, ModifyVolume; earlier it was one in six hours
DEFAULT_IOPS = 3000  # of a volume that becomes gp3, io1 or io2
UNDER_WAY = ("modifying", "optimizing")


def modify_volume(backend: Backend, call: Call) -> Mapping[str, Any]:
    volume = lookup.volume(backend, call, call.text("VolumeId"))
    if not any(call.params.get(name) for name in ("Size", "VolumeType", "Iops", "Throughput")):
        raise conflicting("The request must change the size, the type, the IOPS or the throughput")  # a guessed code
    if volume.state not in ("available", "in-use"):
        raise AwsError("IncorrectState", f"Volume '{volume.id}' is in the '{volume.state}' state.")
    target, now = _target(volume, call.params), backend.clock.now()
    before = backend.database.modifications.get(volume.id)
    if before is not None and before.state in UNDER_WAY:
        raise AwsError(
            "IncorrectModificationState",
            f"Volume {volume.id} cannot be modified in modification state {before.state.upper()}",
        )
    recent = [moment for moment in (before.recent if before else ()) if moment > now - DAY]
    if len(recent) >= MOST_IN_A_DAY:
        raise AwsError(
            "VolumeModificationRateExceeded",
            f"You've reached the maximum modification rate per volume limit. Modify {volume.id} again after"
            f" {recent[0] + DAY:%Y-%m-%dT%H:%M:%SZ}.",
        )
    modification = Modification(
        id=volume.id,
        account=volume.account,
        region=volume.region,
        state="modifying",
        original=_specification(volume),
        target=target,
        start_time=now,
        recent=(*recent, now),
    )
    backend.database.put(modification)
    backend.submit_later(jobs.queue_of(volume), apply, volume.id)
    return {"VolumeModification": _to_api(modification)}


def _specification(volume: Volume) -> DiskSpec:
    return DiskSpec(
        device="", size_gib=volume.size_gib, type=volume.type, iops=volume.iops, throughput=volume.throughput
    )


def _target(volume: Volume, params: Mapping[str, Any]) -> DiskSpec:
    """Return the volume as it is to be. Raises AwsError for values that its type does not allow."""
    size, kind = params.get("Size") or volume.size_gib, params.get("VolumeType") or volume.type
    if size < volume.size_gib:
        raise invalid("New size cannot be smaller than existing size")
    known = block_devices.TYPES.get(kind)
    has_iops = known is not None and known.iops is not None
    own_iops = volume.iops if kind == volume.type else DEFAULT_IOPS
    target = block_devices.with_defaults(
        DiskSpec(
            device="",
            size_gib=size,
            type=kind,
            iops=params.get("Iops") or (own_iops if has_iops else None),
            throughput=params.get("Throughput") or (volume.throughput if kind == volume.type else None),
        ),
        None,
    )
    return replace(target, iops=block_devices.effective_iops(target))


def with_target(backend: Backend, volume: Volume) -> Volume:
    """Return a volume as it is after the modification that is in its queue. A job that is submitted now finds it so."""
    modification = backend.database.modifications.get(volume.id)
    return _modified(volume, modification) if modification and modification.state == "modifying" else volume


def _modified(volume: Volume, modification: Modification) -> Volume:
    target = modification.target
    return replace(volume, size_gib=target.size_gib, type=target.type, iops=target.iops, throughput=target.throughput)


def apply(backend: Backend, volume_id: str) -> None:
    """Modify a volume: a job of the volume's queue, that may be repeated."""
    if _state(backend, volume_id) == "modifying":
        backend.job_queues.delay("modify")
        _grow(backend, volume_id)
    if _state(backend, volume_id) == "optimizing":
        backend.job_queues.delay("optimize")
        with backend.database.change():
            if (found := backend.database.modifications.get(volume_id)) is not None:
                backend.database.put(replace(found, state="completed", end_time=backend.clock.now()))


def _state(backend: Backend, volume_id: str) -> str:
    modification = backend.database.modifications.get(volume_id)
    return modification.state if modification and backend.database.volumes.get(volume_id) else ""


def _grow(backend: Backend, volume_id: str) -> None:
    modification = backend.database.modifications[volume_id]
    try:
        backend.disks.grow_volume(volume_id, modification.target.size_gib * jobs.GIB)
    except OSError as problem:
        log.exception("modifying volume %s failed", volume_id)
        with backend.database.change():
            failed = replace(modification, state="failed", message=str(problem), end_time=backend.clock.now())
            backend.database.put(failed)
        return
    _show_machine(backend, volume_id)
    with backend.database.change():
        if (volume := backend.database.volumes.get(volume_id)) is not None:
            backend.database.put(_modified(volume, modification))
            backend.database.put(replace(modification, state="optimizing"))


def _show_machine(backend: Backend, volume_id: str) -> None:
    """Show the running machine that has the volume its new size; if it cannot, its next boot sees it."""
    volume = backend.database.volumes.get(volume_id)
    instance = backend.database.instances.get(volume.instance_id or "") if volume else None
    for attached in instance.volumes if instance else ():
        if instance and attached.volume_id == volume_id and instance.id in backend.driver.running():
            try:
                backend.driver.resize(instance.id, disk_of(backend, attached).device)
            except (MachineError, OSError):
                log.exception("resizing volume %s of running instance %s failed", volume_id, instance.id)


def describe_volumes_modifications(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = backend.database.modifications.owned(call.account, call.region)
    if named := lookup.volumes(backend, call, call.params.get("VolumeIds", [])):
        rows = [_find(backend, volume) for volume in named]
    getters = AnswerFilters("DescribeVolumesModifications", _to_api)
    shown, token = filters.page(rows, call.params, getters, ids="VolumeIds")
    return {"VolumesModifications": [_to_api(row) for row in shown], "NextToken": token}


def _find(backend: Backend, volume: Volume) -> Modification:
    found = backend.database.modifications.get(volume.id)
    if found is None:
        text = f"Modification for volume '{volume.id}' does not exist."
        raise AwsError("InvalidVolumeModification.NotFound", text)
    return found


def _to_api(row: Modification) -> dict[str, Any]:
    values: dict[str, Any] = {
        "VolumeId": row.id,
        "ModificationState": row.state,
        "StatusMessage": row.message or None,
        "Progress": 100 if row.state == "completed" else 0,
        "StartTime": row.start_time,
        "EndTime": row.end_time,
    }
    for side, disk in (("Original", row.original), ("Target", row.target)):
        values |= {
            f"{side}Size": disk.size_gib,
            f"{side}VolumeType": disk.type,
            f"{side}Iops": disk.iops,
            f"{side}Throughput": disk.throughput,
            f"{side}MultiAttachEnabled": False,
        }
    return values
