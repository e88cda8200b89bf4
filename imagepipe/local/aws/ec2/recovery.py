"""Recover after a start: adopt the machines that still run, and resume pending work.

The previous process may have been killed at any moment. Everything that it answered is in the database. Unfinished work
is recognized by the state of its record, and submitted again to the same queues.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency, retention
from imagepipe.local.aws.ec2.images import ancestry, deregistered, usage_reports
from imagepipe.local.aws.ec2.images import jobs as image_jobs
from imagepipe.local.aws.ec2.instances import disks, metadata
from imagepipe.local.aws.ec2.instances import jobs as instance_jobs
from imagepipe.local.aws.ec2.instances.describe import forget_ended
from imagepipe.local.aws.ec2.network import nat_gateways
from imagepipe.local.aws.ec2.region_setup import prepare_base_images
from imagepipe.local.aws.ec2.volumes import imports, modifications
from imagepipe.local.aws.state.records import Instance

log = logging.getLogger(__name__)

FIRST_REGION = "us-east-1"


def recover(backend: Backend) -> None:
    """Submit all unfinished work. The order matters only within a queue: snapshots come first."""
    backend.disks.sweep()
    _sweep_disks(backend)
    # A full store is reported here, and not by every call.
    prepare_base_images(backend, FIRST_REGION)
    running = backend.driver.running()
    _reap(backend, running)
    _resume_snapshots(backend)
    _resume_images(backend)
    _resume_volumes(backend)
    nat_gateways.resume(backend)
    imports.resume(backend)
    for instance in backend.database.instances:
        _resume_instance(backend, instance, instance.id in running)
        disks.resume(backend, instance)
        if instance.id in running:
            backend.submit(instance.id, instance_jobs.set_addresses, instance.id)
    usage_reports.resume(backend)
    metadata.keep_renewing(backend)
    retention.keep_deleting_expired(backend)
    _forget_old_records(backend)


def _forget_old_records(backend: Backend) -> None:
    """Forget terminated instances, deregistered images and old client tokens."""
    forget_ended(backend)
    with backend.database.change():
        deregistered.forget_old(backend)
        ancestry.forget_childless(backend)
        usage_reports.forget_expired(backend)
        for token in backend.database.tokens:
            if token.used < backend.clock.now() - idempotency.REMEMBERED:
                backend.database.remove(token)


def _sweep_disks(backend: Backend) -> None:
    """Delete files without a record: a record is always deleted before its file."""
    for path, known in (
        (backend.disks.volume_path("vol"), {row.id for row in backend.database.volumes}),
        (
            backend.disks.snapshot_path("snap"),
            {row.id for row in (*backend.database.snapshots, *backend.database.recycled_snapshots)},
        ),
    ):
        for file in path.parent.glob(f"{path.stem}-*{path.suffix}"):
            if file.stem not in known:
                log.info("deleting %s, which nothing names", file)
                file.unlink(missing_ok=True)
    living = {row.id for row in backend.database.instances if row.state != "terminated"}
    for file in backend.disks.store_path("").parent.glob("store-*.raw"):
        if file.stem.removeprefix("store-") not in living:
            log.info("deleting %s, whose instance is gone", file)
            file.unlink(missing_ok=True)


def _reap(backend: Backend, running: frozenset[str]) -> None:
    """Stop machines that should not be running: those without an instance, or of an instance that has ended."""
    for machine_id in running:
        instance = backend.database.instances.get(machine_id)
        if instance is None or instance.state in ("stopped", "terminated"):
            log.warning("stopping machine %s, which no instance needs", machine_id)
            backend.job_queues.submit(machine_id, partial(backend.driver.stop, machine_id, force=True))


def _resume_instance(backend: Backend, instance: Instance, is_running: bool) -> None:
    work: Callable[[Backend, str], None] | None
    match instance.state:
        case "pending":
            if not instance.has_run:
                _reset_volumes(backend, instance)
            work = instance_jobs.boot
        case "stopping":
            work = instance_jobs.stop
        case "shutting-down":
            work = instance_jobs.terminate
        case "running" if is_running:
            work = instance_jobs.open_ports
        case "running":
            # It powered itself off, or the whole computer did; an image being made may have stopped it.
            work = instance_jobs.resume if _is_being_imaged(backend, instance) else instance_jobs.exited
        case _:
            return
    backend.submit(instance.id, work, instance.id)


def _reset_volumes(backend: Backend, instance: Instance) -> None:
    """Have the volumes made again, because the first boot may have been interrupted at any point."""
    with backend.database.change():
        for attached in instance.volumes:
            volume = backend.database.volumes.get(attached.volume_id)
            if volume is not None:
                backend.database.put(replace(volume, state="creating"))


def _is_being_imaged(backend: Backend, instance: Instance) -> bool:
    return any(
        image.capture is not None and image.capture.instance_id == instance.id and image.capture.reboots
        for image in backend.database.images
        if image.state == "pending"
    )


def _resume_snapshots(backend: Backend) -> None:
    captured = {
        disk.snapshot_id for image in backend.database.images if image.state == "pending" for disk in image.mappings
    }
    taken: dict[str, list[str]] = {}
    for snapshot in backend.database.snapshots:
        if snapshot.state != "pending" or snapshot.id in captured:
            continue
        if snapshot.copied_from:
            backend.submit(snapshot.id, image_jobs.finish_copy, snapshot.id)
            continue
        volume = backend.database.volumes.get(snapshot.volume_id)
        taken.setdefault(instance_jobs.queue_of(volume) if volume else snapshot.volume_id, []).append(snapshot.id)
    for queue, ids in taken.items():
        backend.submit(queue, image_jobs.take_snapshots, tuple(ids))


def _resume_images(backend: Backend) -> None:
    for image in backend.database.images:
        if image.state != "pending":
            continue
        if image.capture is not None:
            backend.submit(image.capture.instance_id, image_jobs.capture, image.id)
        else:
            backend.submit(image.id, image_jobs.publish, image.id)


def _resume_volumes(backend: Backend) -> None:
    for volume in backend.database.volumes:
        if volume.state == "deleting":
            backend.submit(volume.id, instance_jobs.delete_volume, volume.id)
        elif volume.state == "creating" and volume.instance_id is None:
            backend.submit(volume.id, instance_jobs.create_volume, volume.id)
    for modification in backend.database.modifications:
        if modification.state in modifications.UNDER_WAY:
            modified = backend.database.volumes.get(modification.id)
            queue = instance_jobs.queue_of(modified) if modified else modification.id
            backend.submit(queue, modifications.apply, modification.id)
