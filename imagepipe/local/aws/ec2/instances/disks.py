"""Background jobs that plug volumes into running machines, and unplug them. They are jobs of the instance's queue.

As in `jobs`: each reads the database when its turn comes, and may be repeated after a restart.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import metadata
from imagepipe.local.aws.state.records import AttachedVolume, Instance
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import Disk

log = logging.getLogger(__name__)

BUSY_SECONDS = 1.0  # between two attempts to detach a volume that the machine uses
LEAVING = ("detaching", "busy")


def disk_of(backend: Backend, attached: AttachedVolume) -> Disk:
    """Describe an attached volume for a driver."""
    name = attached.device if attached.device.startswith("/dev/") else f"/dev/{attached.device}"
    return Disk(name, backend.disks.volume_path(attached.volume_id))


def plug(backend: Backend, instance_id: str, volume_id: str) -> None:
    """Plug in a volume that is attaching. If that fails, it is available again."""
    if (attached := _attached(backend, instance_id, volume_id)) is None or attached.state != "attaching":
        return
    backend.job_queues.delay("attach")
    try:
        if instance_id in backend.driver.running():  # otherwise the next boot has it
            backend.driver.attach(instance_id, disk_of(backend, attached))
    except (MachineError, OSError):
        log.exception("attaching volume %s failed", volume_id)
        _release(backend, instance_id, volume_id)
        return
    _set_state(backend, instance_id, volume_id, "attached")
    metadata.refresh(backend, instance_id)


def unplug(backend: Backend, instance_id: str, volume_id: str) -> None:
    """Unplug a volume that is detaching. One that the machine uses is busy, and is tried again until it is free."""
    if (attached := _attached(backend, instance_id, volume_id)) is None or attached.state not in LEAVING:
        return
    backend.job_queues.delay("detach")
    try:
        if instance_id in backend.driver.running():
            backend.driver.detach(instance_id, disk_of(backend, attached).device)
    except (MachineError, OSError) as problem:
        log.info("volume %s is not detached yet: %s", volume_id, problem)
        _set_state(backend, instance_id, volume_id, "busy")
        again = partial(backend.submit, instance_id, unplug, instance_id, volume_id)
        backend.job_queues.run_later(BUSY_SECONDS, again)
        return
    _release(backend, instance_id, volume_id)
    metadata.refresh(backend, instance_id)


def release_leaving(backend: Backend, instance_id: str) -> None:
    """Detach the volumes of a machine that is off, if they were still to be detached when it was stopped."""
    instance = backend.database.instances.get(instance_id)
    for attached in instance.volumes if instance else ():
        if attached.state in LEAVING:
            _release(backend, instance_id, attached.volume_id)


def resume(backend: Backend, instance: Instance) -> None:
    """Submit what an earlier process did not finish."""
    for attached in instance.volumes:
        if attached.state == "attaching":
            backend.submit(instance.id, plug, instance.id, attached.volume_id)
        elif attached.state in LEAVING:
            backend.submit(instance.id, unplug, instance.id, attached.volume_id)


def _attached(backend: Backend, instance_id: str, volume_id: str) -> AttachedVolume | None:
    instance = backend.database.instances.get(instance_id)
    return next((each for each in instance.volumes if each.volume_id == volume_id), None) if instance else None


def _set_state(backend: Backend, instance_id: str, volume_id: str, state: str) -> None:
    with backend.database.change():
        if instance := backend.database.instances.get(instance_id):
            changed = tuple(
                replace(each, state=state) if each.volume_id == volume_id else each for each in instance.volumes
            )
            backend.database.put(replace(instance, volumes=changed))


def _release(backend: Backend, instance_id: str, volume_id: str) -> None:
    """Make a volume available that is not plugged in any more."""
    with backend.database.change():
        instance, volume = backend.database.instances.get(instance_id), backend.database.volumes.get(volume_id)
        if instance is not None:
            rest = tuple(each for each in instance.volumes if each.volume_id != volume_id)
            backend.database.put(replace(instance, volumes=rest))
        if volume is not None and volume.instance_id == instance_id:
            backend.database.put(replace(volume, state="available", instance_id=None))
