"""What becomes of snapshots and images after an answer: disks are read, copies get their bytes, states are told.

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


def standing_still(world: Backend, volumes: Iterable[str]) -> AbstractContextManager[None]:
    """While inside, nothing is written to these volumes of one instance."""
    for volume_id in volumes:
        volume = world.ledger.volumes.get(volume_id)
        if volume and volume.instance_id and volume.instance_id in world.driver.running():
            return world.driver.quiesced(volume.instance_id)
    return nullcontext()


def take_snapshots(world: Backend, snapshot_ids: Iterable[str]) -> None:
    """pending -> completed, all of one moment; or error, with the reason."""
    pending = [
        snapshot
        for snapshot in map(world.ledger.snapshots.get, snapshot_ids)
        if snapshot is not None and snapshot.state == "pending"
    ]
    try:
        with standing_still(world, (snapshot.volume_id for snapshot in pending)):
            for snapshot in pending:
                world.disks.snapshot(snapshot.volume_id, snapshot.id)
    except jobs.Broken as error:
        log.exception("taking snapshots %s failed", [snapshot.id for snapshot in pending])
        end_snapshots(world, pending, error=str(error))
        return
    world.course.delay("snapshot")
    end_snapshots(world, pending)


def end_snapshots(world: Backend, snapshots: Iterable[Snapshot], *, error: str = "") -> None:
    """Say that they are there, or why they are not. One that was deleted meanwhile leaves no bytes."""
    with world.ledger.change():
        for snapshot in snapshots:
            present = world.ledger.snapshots.get(snapshot.id)
            fault = world.faults.before(snapshot.id, "fail")
            doom = error or snapshot.doom or (fault.reason if fault else "")
            if present is None:
                world.disks.delete_snapshot(snapshot.id)
            elif doom:
                world.ledger.put(replace(present, state="error", message=doom))
            elif world.faults.before(snapshot.id, "hang"):
                log.info("%s hangs", snapshot.id)
            else:
                world.ledger.put(replace(present, state="completed", progress=100, completion_time=world.clock.now()))


def finish_copy(world: Backend, snapshot_id: str) -> None:
    """pending -> completed for a copy; its bytes were linked when it was asked for."""
    snapshot = world.ledger.snapshots.get(snapshot_id)
    if snapshot is None or snapshot.state != "pending":
        return
    failure = link(world, [snapshot])
    if not failure:
        world.course.delay("copy")
    end_snapshots(world, [snapshot], error=failure)


def link(world: Backend, snapshots: Iterable[Snapshot]) -> str:
    """Give copies the bytes of what they copy; what went wrong, or nothing."""
    for snapshot in snapshots:
        assert snapshot.copied_from
        if world.disks.snapshot_path(snapshot.id).exists():
            continue
        try:
            world.disks.copy_snapshot(snapshot.copied_from, snapshot.id)
        except jobs.Broken as error:
            log.exception("copying snapshot %s to %s failed", snapshot.copied_from, snapshot.id)
            return f"copying {snapshot.copied_from}: {error}"
    return ""


def publish(world: Backend, image_id: str, *, delay: str = "image") -> None:
    """pending -> available, once the snapshots are completed; or failed, with the reason."""
    image = world.ledger.images.get(image_id)
    if image is None or image.state != "pending":
        return
    copies = [
        snapshot
        for snapshot in (world.ledger.snapshots.get(disk.snapshot_id or "") for disk in image.mappings)
        if snapshot is not None and snapshot.copied_from and snapshot.state == "pending"
    ]
    failure = link(world, copies)
    if not failure:
        world.course.delay(delay)
    if world.faults.before(image_id, "hang"):
        log.info("%s hangs", image_id)
        return
    end_snapshots(world, copies, error=failure)
    end_image(world, image_id)


def end_image(world: Backend, image_id: str) -> None:
    """The image is available if all that it maps is there."""
    with world.ledger.change():
        image = world.ledger.images.get(image_id)
        if image is None or image.state != "pending" or world.faults.before(image_id, "hang"):
            return
        found = [world.ledger.snapshots.get(disk.snapshot_id) for disk in image.mappings if disk.snapshot_id]
        lost = [snapshot.message or snapshot.state for snapshot in found if snapshot and snapshot.state != "completed"]
        if None in found:
            lost.append("a snapshot was deleted")
        reason = image.doom or "; ".join(lost)
        world.ledger.put(replace(image, state="failed" if reason else "available", reason=reason, capture=None))


def capture(world: Backend, image_id: str) -> None:
    """CreateImage's work: the instance stopped if it was agreed, its volumes snapshotted, and started again."""
    image = world.ledger.images.get(image_id)
    if image is None or image.state != "pending" or image.capture is None:
        return
    instance = world.ledger.instances.get(image.capture.instance_id)
    wanted = [disk.snapshot_id for disk in image.mappings if disk.snapshot_id]
    if image.capture.reboots and instance and instance.state == "running":
        jobs.power_off(world, instance.id, force=False)
        take_snapshots(world, wanted)
        jobs.resume(world, instance.id)
    else:
        take_snapshots(world, wanted)
    world.course.delay("image")
    end_image(world, image_id)
