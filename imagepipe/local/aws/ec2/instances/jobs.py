"""What happens to machines and disks after an answer: each function here is work for a queue of the course.

Each reads the ledger when its turn comes and does nothing if the thing has moved on meanwhile, so each may be
done again after a restart, from wherever the process before it was killed.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from imagepipe.errors import BundleError
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import faults
from imagepipe.local.aws.ec2.instances.metadata import metadata_of
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.state.records import Instance, Rule, Volume
from imagepipe.local.disks.files import DiskError, StoreFull
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import Disk, Ingress, Machine, Seed

log = logging.getLogger(__name__)

GIB = 1 << 30
Broken = (MachineError, StoreFull, DiskError, BundleError, AwsError, OSError)
"""What a driver and the disks fail with. The gateway tells it by the thing's state and reason, as EC2 does."""


class Doomed(MachineError):
    """A fault that was asked for comes over an instance before it runs."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code
        """Of its StateReason; EC2's own if empty."""


class KeyUnusable(DiskError):
    """A volume cannot be made with the KMS key that it was asked with."""


def machine_of(world: Backend, instance: Instance) -> Machine:
    """The instance as its driver needs it, root device first."""
    attached = sorted(instance.volumes, key=lambda volume: volume.device != instance.root_device)
    disks = [Disk(volume.device, world.disks.volume_path(volume.volume_id)) for volume in attached]
    if instance.bundle:
        disks.insert(0, Disk(instance.root_device, world.disks.store_path(instance.id)))
    return Machine(
        id=instance.id,
        address=instance.address,
        disks=tuple(disks),
        seed=Seed(
            instance_id=instance.id,
            hostname=f"ip-{instance.private_ip.replace('.', '-')}",
            region=instance.region,
            user_data=base64.b64decode(instance.user_data),
            public_keys=instance.public_keys,
        ),
        metadata=metadata_of(world, instance),
    )


def ingress_of(world: Backend, instance: Instance) -> list[Ingress]:
    """What the instance's groups let in. A rule that names a group means the addresses of its members."""
    opened: dict[Ingress, None] = {}
    for group_id in instance.group_ids:
        group = world.ledger.groups.get(group_id)
        for rule in group.ingress if group else ():
            for cidr in _sources(world, rule):
                opened[Ingress(rule.protocol, rule.from_port, rule.to_port, cidr)] = None
    return list(opened)


def _sources(world: Backend, rule: Rule) -> Iterable[str]:
    if rule.cidr:
        yield rule.cidr
    elif rule.group_id:
        for member in world.ledger.instances:
            if rule.group_id in member.group_ids and member.state in ("pending", "running"):
                yield f"{member.address}/32"


def boot(world: Backend, instance_id: str) -> None:
    """pending -> running: make the volumes that are still to be made, and start the machine."""
    instance = world.ledger.instances.get(instance_id)
    if instance is None or instance.state != "pending":
        return
    world.course.delay("run")
    try:
        if fault := world.faults.before(instance_id, "fail"):
            raise Doomed(fault.reason, fault.code)
        if instance_id in world.driver.running():  # started by a process that was killed before it said so
            world.driver.stop(instance_id, force=True)
        for attached in instance.volumes:
            make_volume(world, attached.volume_id, state="in-use")
        _lay_out(world, instance)
        world.driver.start(machine_of(world, instance), ingress_of(world, instance))
        faults.hold(world, instance)
    except Broken as error:
        log.exception("starting instance %s failed", instance_id)
        _boot_failed(world, instance_id, error, goes_back=instance.has_run)
        return
    with world.ledger.change():
        instance = world.ledger.instances[instance_id]
        if instance.state == "pending":
            world.ledger.put(replace(instance, state="running", has_run=True, reason_code="", reason=""))
    faults.drop_later(world, instance)
    if fault := world.faults.before(instance_id, "die"):
        dying = partial(die, world, instance_id, fault)
        world.course.after(fault.seconds, partial(_submit, world, instance_id, dying))


def _submit(world: Backend, key: str, work: Callable[[], None]) -> None:
    world.course.submit(key, work)


def _lay_out(world: Backend, instance: Instance) -> None:
    """The root of an instance-store instance, from its bundle as it is in S3 now. Raises BundleError."""
    if instance.bundle is None:
        return
    image = world.ledger.images.get(instance.image_id)
    owner = image.account if image else instance.account
    target = world.disks.store_path(instance.id)
    world.bundles.lay_out(instance.bundle, target, account=owner, region=instance.region)


def _boot_failed(world: Backend, instance_id: str, error: Exception, *, goes_back: bool) -> None:
    """A first start that fails terminates the instance, a later one leaves it stopped, as on EC2."""
    code = "Client.VolumeLimitExceeded" if isinstance(error, StoreFull) else "Server.InternalError"
    if isinstance(error, Doomed):
        code = error.code or code
    if isinstance(error, KeyUnusable):  # what EC2 says then (EC2 user guide, "Troubleshoot launch issues")
        code, error = "Client.InternalError", KeyUnusable("Client error on launch")
    with world.ledger.change():
        instance = world.ledger.instances[instance_id]
        if instance.state != "pending":
            return
        state = "stopped" if goes_back else "shutting-down"
        world.ledger.put(replace(instance, state=state, reason_code=code, reason=f"{code}: {error}"))
    if not goes_back:
        terminate(world, instance_id)


def stop(world: Backend, instance_id: str, *, force: bool = False) -> None:
    """stopping -> stopped: when this is done the disks hold all that the machine wrote."""
    instance = world.ledger.instances.get(instance_id)
    if instance is None or instance.state != "stopping":
        return
    world.course.delay("stop")
    if not power_off(world, instance_id, force=force):
        return
    with world.ledger.change():
        instance = world.ledger.instances[instance_id]
        if instance.state == "stopping":
            world.ledger.put(replace(instance, state="stopped"))


def power_off(world: Backend, instance_id: str, *, force: bool) -> bool:
    """A machine that will not be stopped in order is stopped at once; one that will not be stopped stays."""
    for hard in (force, True):
        try:
            world.driver.stop(instance_id, force=hard)
        except Broken as error:
            log.exception("stopping instance %s failed", instance_id)
            failure = error
        else:
            return True
    with world.ledger.change():
        instance = world.ledger.instances[instance_id]
        world.ledger.put(replace(instance, reason_code="Server.InternalError", reason=str(failure)))
    return False


def terminate(world: Backend, instance_id: str) -> None:
    """shutting-down -> terminated: the machine is gone, and those volumes that go with it."""
    instance = world.ledger.instances.get(instance_id)
    if instance is None or instance.state != "shutting-down":
        return
    world.course.delay("terminate")
    if not power_off(world, instance_id, force=True):
        return
    for attached in instance.volumes:
        if attached.delete_on_termination:
            world.disks.delete_volume(attached.volume_id)
    world.disks.store_path(instance_id).unlink(missing_ok=True)
    with world.ledger.change():
        instance = world.ledger.instances[instance_id]
        for attached in instance.volumes:
            volume = world.ledger.volumes.get(attached.volume_id)
            if volume is None:
                continue
            if attached.delete_on_termination:
                world.ledger.remove(volume)
            else:
                world.ledger.put(replace(volume, state="available", instance_id=None))
        world.ledger.put(replace(instance, state="terminated", ended_at=world.clock.now(), volumes=()))


def die(world: Backend, instance_id: str, fault: Fault) -> None:
    """running -> terminated by nobody's wish, as where a host of EC2's fails; nothing if the fault was cleared."""
    code = fault.code or "Server.InternalError"
    with world.ledger.change():
        instance = world.ledger.instances.get(instance_id)
        if instance is None or instance.state != "running" or world.faults.before(instance_id, "die") is not fault:
            return
        reason = f"{code}: {fault.reason}"
        world.ledger.put(replace(instance, state="shutting-down", reason_code=code, reason=reason))
    terminate(world, instance_id)


def exited(world: Backend, instance_id: str) -> None:
    """The machine powered itself off: the instance is stopped or terminated, as it was launched to be."""
    code = "Client.InstanceInitiatedShutdown"
    with world.ledger.change():
        instance = world.ledger.instances.get(instance_id)
        if instance is None or instance.state != "running" or instance_id in world.driver.running():
            return
        ends = instance.shutdown_behavior == "terminate" or instance.bundle is not None
        world.ledger.put(
            replace(
                instance,
                state="shutting-down" if ends else "stopped",
                reason_code=code,
                reason=f"{code}: Instance initiated shutdown",
            )
        )
    if ends:
        terminate(world, instance_id)


def reboot(world: Backend, instance_id: str) -> None:
    """Ask the machine to boot again; the instance stays running."""
    instance = world.ledger.instances.get(instance_id)
    if instance is None or instance.state != "running":
        return
    try:
        world.driver.reboot(instance_id)
    except Broken:
        log.exception("rebooting instance %s failed", instance_id)


def open_ports(world: Backend, instance_id: str) -> None:
    """Tell the driver what the instance's groups let in now."""
    instance = world.ledger.instances.get(instance_id)
    if instance is None or instance.state != "running":
        return
    try:
        world.driver.set_ingress(instance_id, ingress_of(world, instance))
    except Broken:
        log.exception("opening the ports of instance %s failed", instance_id)


def forget(world: Backend, instance_id: str) -> None:
    """The instance is no longer described by anybody."""
    with world.ledger.change():
        instance = world.ledger.instances.get(instance_id)
        if instance is not None and instance.state == "terminated":
            world.ledger.remove(instance)
    world.driver.forget(instance_id)


def make_volume(world: Backend, volume_id: str, *, state: str = "available") -> None:
    """creating -> available or in-use. Raises what went wrong."""
    volume = world.ledger.volumes.get(volume_id)
    if volume is None or volume.state != "creating":
        return
    world.course.delay("volume")
    if volume.doom:
        raise KeyUnusable(volume.doom)
    world.disks.delete_volume(volume_id)
    world.disks.create_volume(volume_id, size_bytes=volume.size_gib * GIB, snapshot_id=volume.snapshot_id)
    with world.ledger.change():
        world.ledger.put(replace(world.ledger.volumes[volume_id], state=state))


def create_volume(world: Backend, volume_id: str) -> None:
    """The same for a volume that nothing waits for: it tells of failure by its state."""
    try:
        make_volume(world, volume_id)
    except Broken:
        log.exception("making volume %s failed", volume_id)
        with world.ledger.change():
            volume = world.ledger.volumes.get(volume_id)
            if volume is not None:
                world.ledger.put(replace(volume, state="error"))


def delete_volume(world: Backend, volume_id: str) -> None:
    """deleting -> gone."""
    world.disks.delete_volume(volume_id)
    with world.ledger.change():
        volume = world.ledger.volumes.get(volume_id)
        if volume is not None and volume.state == "deleting":
            world.ledger.remove(volume)


def queue_of(volume: Volume) -> str:
    """The queue in which a volume's work must wait its turn."""
    return volume.instance_id or volume.id


def resume(world: Backend, instance_id: str) -> None:
    """Start the machine of an instance that has been running all along, as far as anybody was told."""
    instance = world.ledger.instances.get(instance_id)
    if instance is None or instance.state != "running" or instance_id in world.driver.running():
        return
    try:
        world.driver.start(machine_of(world, instance), ingress_of(world, instance))
    except Broken as error:
        log.exception("starting instance %s again failed", instance_id)
        with world.ledger.change():
            code = "Server.InternalError"
            instance = world.ledger.instances[instance_id]
            if instance.state == "running":
                world.ledger.put(replace(instance, state="stopped", reason_code=code, reason=f"{code}: {error}"))
