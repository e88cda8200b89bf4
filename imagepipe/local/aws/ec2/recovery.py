"""After a start: the machines that live on are adopted, and what was pending is taken up again.

The process before may have been killed at any moment. Everything that it had answered is in the ledger; what it
had not finished is found there by its state, and submitted again to the same queues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency
from imagepipe.local.aws.ec2.images import jobs as image_jobs
from imagepipe.local.aws.ec2.instances import jobs as instance_jobs
from imagepipe.local.aws.ec2.instances.describe import REMEMBERED
from imagepipe.local.aws.state.records import Instance

log = logging.getLogger(__name__)

FIRST_REGION = "us-east-1"


def recover(world: Backend) -> None:
    """Submit all work that is outstanding. Order matters within a queue alone: snapshots before what follows."""
    world.disks.sweep()
    _sweep_disks(world)
    # Said now, where there is no room for it, and not by every call.
    world.settle_base(FIRST_REGION)
    running = world.driver.running()
    _reap(world, running)
    _resume_snapshots(world)
    _resume_images(world)
    _resume_volumes(world)
    for instance in world.ledger.instances:
        _resume_instance(world, instance, instance.id in running)
    _forget_the_past(world)


def _forget_the_past(world: Backend) -> None:
    """What nobody is told of any more need not be kept."""
    now = world.clock.now()
    for instance in world.ledger.instances:
        if instance.ended_at is not None and instance.ended_at < now - REMEMBERED:
            world.course.submit(instance.id, partial(instance_jobs.forget, world, instance.id))
    with world.ledger.change():
        for token in world.ledger.tokens:
            if token.used < now - idempotency.REMEMBERED:
                world.ledger.remove(token)


def _sweep_disks(world: Backend) -> None:
    """Delete files that no record names: a record goes before its file does."""
    for path, known in (
        (world.disks.volume_path("vol"), {row.id for row in world.ledger.volumes}),
        (world.disks.snapshot_path("snap"), {row.id for row in world.ledger.snapshots}),
    ):
        for file in path.parent.glob(f"{path.stem}-*{path.suffix}"):
            if file.stem not in known:
                log.info("deleting %s, which nothing names", file)
                file.unlink(missing_ok=True)
    living = {row.id for row in world.ledger.instances if row.state != "terminated"}
    for file in world.disks.store_path("").parent.glob("store-*.raw"):
        if file.stem.removeprefix("store-") not in living:
            log.info("deleting %s, whose instance is gone", file)
            file.unlink(missing_ok=True)


def _reap(world: Backend, running: frozenset[str]) -> None:
    """Stop machines that should not be running: nobody's, or those of instances that had ended."""
    for machine_id in running:
        instance = world.ledger.instances.get(machine_id)
        if instance is None or instance.state in ("stopped", "terminated"):
            log.warning("stopping machine %s, which no instance needs", machine_id)
            world.course.submit(machine_id, partial(world.driver.stop, machine_id, force=True))


def _resume_instance(world: Backend, instance: Instance, is_running: bool) -> None:
    work: Callable[[Backend, str], None] | None
    match instance.state:
        case "pending":
            if not instance.has_run:
                _start_afresh(world, instance)
            work = instance_jobs.boot
        case "stopping":
            work = instance_jobs.stop
        case "shutting-down":
            work = instance_jobs.terminate
        case "running" if is_running:
            work = instance_jobs.open_ports
        case "running":
            # It powered itself off, or the whole computer did; an image being made may have stopped it.
            work = instance_jobs.resume if _is_being_imaged(world, instance) else instance_jobs.exited
        case _:
            return
    world.course.submit(instance.id, partial(work, world, instance.id))


def _start_afresh(world: Backend, instance: Instance) -> None:
    """A first boot may have been cut off anywhere: give it disks on which nothing has run yet."""
    with world.ledger.change():
        for attached in instance.volumes:
            volume = world.ledger.volumes.get(attached.volume_id)
            if volume is not None:
                world.ledger.put(replace(volume, state="creating"))


def _is_being_imaged(world: Backend, instance: Instance) -> bool:
    return any(
        image.capture is not None and image.capture.instance_id == instance.id and image.capture.reboots
        for image in world.ledger.images
        if image.state == "pending"
    )


def _resume_snapshots(world: Backend) -> None:
    captured = {
        disk.snapshot_id for image in world.ledger.images if image.state == "pending" for disk in image.mappings
    }
    taken: dict[str, list[str]] = {}
    for snapshot in world.ledger.snapshots:
        if snapshot.state != "pending" or snapshot.id in captured:
            continue
        if snapshot.copied_from:
            world.course.submit(snapshot.id, partial(image_jobs.finish_copy, world, snapshot.id))
            continue
        volume = world.ledger.volumes.get(snapshot.volume_id)
        taken.setdefault(instance_jobs.queue_of(volume) if volume else snapshot.volume_id, []).append(snapshot.id)
    for queue, ids in taken.items():
        world.course.submit(queue, partial(image_jobs.take_snapshots, world, tuple(ids)))


def _resume_images(world: Backend) -> None:
    for image in world.ledger.images:
        if image.state != "pending":
            continue
        if image.capture is not None:
            work = partial(image_jobs.capture, world, image.id)
            world.course.submit(image.capture.instance_id, work)
        else:
            world.course.submit(image.id, partial(image_jobs.publish, world, image.id))


def _resume_volumes(world: Backend) -> None:
    for volume in world.ledger.volumes:
        if volume.state == "deleting":
            world.course.submit(volume.id, partial(instance_jobs.delete_volume, world, volume.id))
        elif volume.state == "creating" and volume.instance_id is None:
            world.course.submit(volume.id, partial(instance_jobs.create_volume, world, volume.id))
