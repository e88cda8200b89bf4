"""Background jobs of machines and volumes: each function here is work for a job queue.

Each reads the database when its turn comes, and does nothing if the resource has another state by then. So each can be
repeated after a restart, at whatever point the previous process was killed.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.errors import BundleError
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import credentials, disks, faults
from imagepipe.local.aws.ec2.instances.metadata import metadata_of, refresh
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.state.records import Instance, Rule, Volume
from imagepipe.local.disks.files import DiskError, StoreFull
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import Disk, Ingress, Machine, Seed

log = logging.getLogger(__name__)

GIB = 1 << 30
FAILURES = (MachineError, StoreFull, DiskError, BundleError, AwsError, OSError)
"""Errors of drivers and disks, which the gateway shows in the state and reason of a resource, as EC2 does."""


class InjectedFailure(MachineError):
    """A fault terminates an instance before it runs."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code
        """Code of the StateReason; EC2's own if empty."""


class KeyUnusable(DiskError):
    """The KMS key that was requested for a volume cannot be used."""


def machine_of(backend: Backend, instance: Instance) -> Machine:
    """Describe the instance for its driver, root device first."""
    attached = sorted(instance.volumes, key=lambda volume: volume.device != instance.root_device)
    plugged = [disks.disk_of(backend, volume) for volume in attached]
    if instance.bundle:
        plugged.insert(0, Disk(instance.root_device, backend.disks.store_path(instance.id)))
    return Machine(
        id=instance.id,
        address=instance.address,
        disks=tuple(plugged),
        seed=Seed(
            instance_id=instance.id,
            hostname=f"ip-{instance.private_ip.replace('.', '-')}",
            region=instance.region,
            user_data=base64.b64decode(instance.user_data),
            public_keys=instance.public_keys,
        ),
        metadata=metadata_of(backend, instance),
        architecture=instance.architecture,
        further_addresses=further_addresses(instance),
    )


def further_addresses(instance: Instance) -> tuple[str, ...]:
    return (instance.elastic_ip,) if instance.elastic_ip else ()


def ingress_of(backend: Backend, instance: Instance) -> list[Ingress]:
    """List the ports that the instance's groups open. A rule that names a group means the addresses of its members."""
    opened: dict[Ingress, None] = {}
    for group_id in instance.group_ids:
        group = backend.database.groups.get(group_id)
        for rule in group.ingress if group else ():
            for cidr in _sources(backend, rule):
                opened[Ingress(rule.protocol, rule.from_port, rule.to_port, cidr)] = None
    return list(opened)


def _sources(backend: Backend, rule: Rule) -> Iterable[str]:
    if rule.cidr:
        yield rule.cidr
    elif rule.group_id:
        for member in backend.database.instances:
            if rule.group_id in member.group_ids and member.state in ("pending", "running"):
                yield f"{member.address}/32"


def _in_state(backend: Backend, instance_id: str, state: str) -> Instance | None:
    """Return the instance if it is in this state, otherwise None."""
    instance = backend.database.instances.get(instance_id)
    return instance if instance is not None and instance.state == state else None


def _change(backend: Backend, instance_id: str, old_state: str, **values: Any) -> Instance | None:
    """Change the instance if it is still in this state; return it as it is then."""
    with backend.database.change():
        if instance := _in_state(backend, instance_id, old_state):
            instance = replace(instance, **values)
            backend.database.put(instance)
        return instance


def boot(backend: Backend, instance_id: str) -> None:
    """Run a pending instance: make its volumes, and start its machine."""
    if (instance := _in_state(backend, instance_id, "pending")) is None:
        return
    backend.job_queues.delay("run")
    try:
        if fault := backend.faults.bound(instance_id, "fail"):
            raise InjectedFailure(fault.reason, fault.code)
        if instance_id in backend.driver.running():  # started by a process that was killed before it recorded that
            backend.driver.stop(instance_id, force=True)
        disks.release_leaving(backend, instance_id)
        instance = backend.database.instances[instance_id]
        for attached in instance.volumes:
            make_volume(backend, attached.volume_id, state="in-use")
        _unpack_bundle(backend, instance)
        credentials.renew(backend, instance_id)
        backend.driver.start(machine_of(backend, instance), ingress_of(backend, instance))
        faults.hold(backend, instance)
    except FAILURES as error:
        log.exception("starting instance %s failed", instance_id)
        _boot_failed(backend, instance_id, error, goes_back=instance.has_run)
        return
    _change(backend, instance_id, "pending", state="running", has_run=True, reason_code="", reason="")
    faults.drop_later(backend, instance)
    if fault := backend.faults.bound(instance_id, "die"):
        backend.job_queues.run_later(fault.seconds, partial(backend.submit, instance_id, die, instance_id, fault))


def _unpack_bundle(backend: Backend, instance: Instance) -> None:
    """Make the root disk of an instance-store instance from its bundle in S3. Raises BundleError."""
    if instance.bundle is None:
        return
    image = backend.database.images.get(instance.image_id)
    owner = image.account if image else instance.account
    target = backend.disks.store_path(instance.id)
    backend.bundles.unpack_to(instance.bundle, target, account=owner, region=instance.region)


def _boot_failed(backend: Backend, instance_id: str, error: Exception, *, goes_back: bool) -> None:
    """Terminate an instance whose first start failed; a later failure leaves it stopped, as on EC2."""
    code = "Client.VolumeLimitExceeded" if isinstance(error, StoreFull) else "Server.InternalError"
    if isinstance(error, InjectedFailure):
        code = error.code or code
    if isinstance(error, KeyUnusable):  # EC2's own words (EC2 user guide, "Troubleshoot launch issues")
        code, error = "Client.InternalError", KeyUnusable("Client error on launch")
    state = "stopped" if goes_back else "shutting-down"
    changed = _change(backend, instance_id, "pending", state=state, reason_code=code, reason=f"{code}: {error}")
    if changed and not goes_back:
        terminate(backend, instance_id)


def stop(backend: Backend, instance_id: str, *, force: bool = False) -> None:
    """Stop a stopping instance; afterwards the disks hold all that the machine wrote."""
    if _in_state(backend, instance_id, "stopping") is None:
        return
    backend.job_queues.delay("stop")
    if power_off(backend, instance_id, force=force):
        _change(backend, instance_id, "stopping", state="stopped")


def power_off(backend: Backend, instance_id: str, *, force: bool) -> bool:
    """Power off the machine, by force if it does not respond. Return false if it cannot be stopped."""
    for hard in (force, True):
        try:
            backend.driver.stop(instance_id, force=hard)
        except FAILURES as error:
            log.exception("stopping instance %s failed", instance_id)
            failure = error
        else:
            return True
    with backend.database.change():
        instance = backend.database.instances[instance_id]
        backend.database.put(replace(instance, reason_code="Server.InternalError", reason=str(failure)))
    return False


def terminate(backend: Backend, instance_id: str) -> None:
    """Terminate an instance that is shutting down, with the volumes that are deleted with it."""
    if (instance := _in_state(backend, instance_id, "shutting-down")) is None:
        return
    backend.job_queues.delay("terminate")
    if not power_off(backend, instance_id, force=True):
        return
    for attached in instance.volumes:
        if attached.delete_on_termination:
            backend.disks.delete_volume(attached.volume_id)
    backend.disks.store_path(instance_id).unlink(missing_ok=True)
    with backend.database.change():
        instance = backend.database.instances[instance_id]
        for attached in instance.volumes:
            volume = backend.database.volumes.get(attached.volume_id)
            if volume is None:
                continue
            if attached.delete_on_termination:
                _forget_volume(backend, volume)
            else:
                backend.database.put(replace(volume, state="available", instance_id=None))
        for address in backend.database.addresses:
            if address.instance_id == instance_id:
                backend.database.put(replace(address, instance_id=None, association_id=""))
        ended = replace(instance, state="terminated", ended_at=backend.clock.now(), volumes=(), elastic_ip="")
        backend.database.put(ended)


def die(backend: Backend, instance_id: str, fault: Fault) -> None:
    """Terminate a running instance by a fault, as if its host failed; do nothing if the fault was cleared."""
    code = fault.code or "Server.InternalError"
    if backend.faults.bound(instance_id, "die") is not fault:
        return
    reason = f"{code}: {fault.reason}"
    if _change(backend, instance_id, "running", state="shutting-down", reason_code=code, reason=reason):
        terminate(backend, instance_id)


def exited(backend: Backend, instance_id: str) -> None:
    """Stop or terminate an instance whose machine powered itself off, as its shutdown behavior requires."""
    code = "Client.InstanceInitiatedShutdown"
    with backend.database.change():
        instance = _in_state(backend, instance_id, "running")
        if instance is None or instance_id in backend.driver.running():
            return
        ends = instance.shutdown_behavior == "terminate" or instance.bundle is not None
        reason, state = f"{code}: Instance initiated shutdown", "shutting-down" if ends else "stopped"
        backend.database.put(replace(instance, state=state, reason_code=code, reason=reason))
    if ends:
        terminate(backend, instance_id)


def reboot(backend: Backend, instance_id: str) -> None:
    """Ask the machine to boot again; the instance stays running."""
    if _in_state(backend, instance_id, "running") is None:
        return
    try:
        backend.driver.reboot(instance_id)
    except FAILURES:
        log.exception("rebooting instance %s failed", instance_id)


def open_ports(backend: Backend, instance_id: str) -> None:
    """Tell the driver which ports the instance's groups open now."""
    if (instance := _in_state(backend, instance_id, "running")) is None:
        return
    try:
        backend.driver.set_ingress(instance_id, ingress_of(backend, instance))
    except FAILURES:
        log.exception("opening the ports of instance %s failed", instance_id)


def set_addresses(backend: Backend, instance_id: str) -> None:
    """Open a running machine's ports at its Elastic IP address, or close them there."""
    if (instance := _in_state(backend, instance_id, "running")) is None:
        return
    try:
        backend.driver.set_addresses(instance_id, further_addresses(instance))
    except FAILURES:
        log.exception("opening the ports of instance %s at %s failed", instance_id, further_addresses(instance))
    refresh(backend, instance_id)


def forget(backend: Backend, instance_id: str) -> None:
    """Forget a terminated instance, which is no longer described."""
    with backend.database.change():
        if instance := _in_state(backend, instance_id, "terminated"):
            backend.database.remove(instance)
    backend.driver.forget(instance_id)


def make_volume(backend: Backend, volume_id: str, *, state: str = "available") -> None:
    """Create a volume that is in state creating. Raises the error if that fails."""
    volume = backend.database.volumes.get(volume_id)
    if volume is None or volume.state != "creating":
        return
    backend.job_queues.delay("volume")
    if volume.fails_with:
        raise KeyUnusable(volume.fails_with)
    backend.disks.delete_volume(volume_id)
    backend.disks.create_volume(volume_id, size_bytes=volume.size_gib * GIB, snapshot_id=volume.snapshot_id)
    with backend.database.change():
        backend.database.put(replace(backend.database.volumes[volume_id], state=state))


def create_volume(backend: Backend, volume_id: str) -> None:
    """Create a volume on its own; a failure is shown in its state."""
    try:
        make_volume(backend, volume_id)
    except FAILURES:
        log.exception("making volume %s failed", volume_id)
        with backend.database.change():
            volume = backend.database.volumes.get(volume_id)
            if volume is not None:
                backend.database.put(replace(volume, state="error"))


def delete_volume(backend: Backend, volume_id: str) -> None:
    """Delete the bytes of a deleting volume, and its record."""
    backend.disks.delete_volume(volume_id)
    with backend.database.change():
        volume = backend.database.volumes.get(volume_id)
        if volume is not None and volume.state == "deleting":
            _forget_volume(backend, volume)


def _forget_volume(backend: Backend, volume: Volume) -> None:
    backend.database.remove(volume)
    if modification := backend.database.modifications.get(volume.id):
        backend.database.remove(modification)


def queue_of(volume: Volume) -> str:
    """Return the queue of a volume's work."""
    return volume.instance_id or volume.id


def resume(backend: Backend, instance_id: str) -> None:
    """Start the machine of an instance whose state has stayed `running` while the machine was off."""
    instance = _in_state(backend, instance_id, "running")
    if instance is None or instance_id in backend.driver.running():
        return
    try:
        disks.release_leaving(backend, instance_id)
        credentials.renew(backend, instance_id)
        instance = backend.database.instances[instance_id]
        backend.driver.start(machine_of(backend, instance), ingress_of(backend, instance))
    except FAILURES as error:
        log.exception("starting instance %s again failed", instance_id)
        code = "Server.InternalError"
        _change(backend, instance_id, "running", state="stopped", reason_code=code, reason=f"{code}: {error}")
