"""Background jobs of snapshots and images: read disks, link the bytes of copies, set the final states.

As in `instances.jobs`: each function is a job of a queue (`JobQueues`), and may be done again after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import jobs
from imagepipe.local.aws.state.records import Snapshot

log = logging.getLogger(__name__)


def frozen_volumes(backend: Backend, volumes: Iterable[str]) -> AbstractContextManager[None]:
    """Freeze these volumes of one instance within the block."""
    for volume_id in volumes:
        volume = backend.database.volumes.get(volume_id)
        if volume and volume.instance_id and volume.instance_id in backend.driver.running():
            return backend.driver.quiesced(volume.instance_id)
    return nullcontext()


def take_snapshots(backend: Backend, snapshot_ids: Iterable[str]) -> None:
    """Complete these pending snapshots, all taken at the same moment. If that fails, set their state to error."""
    pending = [
        snapshot
        for snapshot in map(backend.database.snapshots.get, snapshot_ids)
        if snapshot is not None and snapshot.state == "pending"
    ]
    try:
        with frozen_volumes(backend, (snapshot.volume_id for snapshot in pending)):
            for snapshot in pending:
                backend.disks.snapshot(snapshot.volume_id, snapshot.id)
    except jobs.FAILURES as error:
        log.exception("taking snapshots %s failed", [snapshot.id for snapshot in pending])
        end_snapshots(backend, pending, error=str(error))
        return
    backend.job_queues.delay("snapshot")
    end_snapshots(backend, pending)


def end_snapshots(backend: Backend, snapshots: Iterable[Snapshot], *, error: str = "") -> None:
    """Complete the snapshots, or set their state to error. Delete the bytes of those that were deleted meanwhile."""
    with backend.database.change():
        for snapshot in snapshots:
            present = backend.database.snapshots.get(snapshot.id)
            fault = backend.faults.bound(snapshot.id, "fail")
            fails_with = error or snapshot.fails_with or (fault.reason if fault else "")
            if present is None:
                backend.disks.delete_snapshot(snapshot.id)
            elif fails_with:
                backend.database.put(replace(present, state="error", message=fails_with))
            elif backend.faults.bound(snapshot.id, "hang"):
                log.info("%s hangs", snapshot.id)
            else:
                backend.database.put(
                    replace(present, state="completed", progress=100, completion_time=backend.clock.now())
                )


def finish_copy(backend: Backend, snapshot_id: str) -> None:
    """Complete a pending copy, whose bytes were linked by the request."""
    snapshot = backend.database.snapshots.get(snapshot_id)
    if snapshot is None or snapshot.state != "pending":
        return
    failure = link(backend, [snapshot])
    if not failure:
        backend.job_queues.delay("copy")
    end_snapshots(backend, [snapshot], error=failure)


def link(backend: Backend, snapshots: Iterable[Snapshot]) -> str:
    """Link the bytes of copies to those of their sources. Return the reason of a failure, or an empty string."""
    for snapshot in snapshots:
        assert snapshot.copied_from
        if backend.disks.snapshot_path(snapshot.id).exists():
            continue
        try:
            backend.disks.copy_snapshot(snapshot.copied_from, snapshot.id)
        except jobs.FAILURES as error:
            log.exception("copying snapshot %s to %s failed", snapshot.copied_from, snapshot.id)
            return f"copying {snapshot.copied_from}: {error}"
    return ""


def publish(backend: Backend, image_id: str, *, delay: str = "image") -> None:
    """Link the bytes of a pending image's copied snapshots, and make it available, or failed if one of them failed."""
    image = backend.database.images.get(image_id)
    if image is None or image.state != "pending":
        return
    copies = [
        snapshot
        for snapshot in (backend.database.snapshots.get(disk.snapshot_id or "") for disk in image.mappings)
        if snapshot is not None and snapshot.copied_from and snapshot.state == "pending"
    ]
    failure = link(backend, copies)
    if not failure:
        backend.job_queues.delay(delay)
    if backend.faults.bound(image_id, "hang"):
        log.info("%s hangs", image_id)
        return
    end_snapshots(backend, copies, error=failure)
    end_image(backend, image_id)


def end_image(backend: Backend, image_id: str) -> None:
    """Make a pending image available if all its snapshots are completed, otherwise failed."""
    with backend.database.change():
        image = backend.database.images.get(image_id)
        if image is None or image.state != "pending" or backend.faults.bound(image_id, "hang"):
            return
        found = [backend.database.snapshots.get(disk.snapshot_id) for disk in image.mappings if disk.snapshot_id]
        lost = [snapshot.message or snapshot.state for snapshot in found if snapshot and snapshot.state != "completed"]
        if None in found:
            lost.append("a snapshot was deleted")
        reason = image.fails_with or "; ".join(lost)
        backend.database.put(replace(image, state="failed" if reason else "available", reason=reason, capture=None))


def capture(backend: Backend, image_id: str) -> None:
    """Do a CreateImage: stop the instance unless NoReboot was set, take its volumes' snapshots, start it again."""
    image = backend.database.images.get(image_id)
    if image is None or image.state != "pending" or image.capture is None:
        return
    instance = backend.database.instances.get(image.capture.instance_id)
    wanted = [disk.snapshot_id for disk in image.mappings if disk.snapshot_id]
    if image.capture.reboots and instance and instance.state == "running":
        jobs.power_off(backend, instance.id, force=False)
        take_snapshots(backend, wanted)
        jobs.resume(backend, instance.id)
    else:
        take_snapshots(backend, wanted)
    backend.job_queues.delay("image")
    end_image(backend, image_id)
