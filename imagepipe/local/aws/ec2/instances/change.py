"""Start, stop, change and terminate instances. The work itself is done by `jobs`."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup
from imagepipe.local.aws.ec2.instances import jobs, spot
from imagepipe.local.aws.ec2.instances.describe import USER_INITIATED, state_of
from imagepipe.local.aws.moto.catalogue import instance_type
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid, missing, unsupported
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.protocol.times import whole_second
from imagepipe.local.aws.state.records import Instance


def start_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    changes = []
    for instance in _named(backend, call):
        old = instance.state
        if old not in ("stopped", "running", "pending"):
            raise _wrong_state(instance, "started")
        if old == "stopped":
            _check_root(instance)
            launch_time = whole_second(backend.clock.now())
            instance = replace(instance, state="pending", reason_code="", reason="", launch_time=launch_time)
            backend.database.put(instance)
            backend.submit_later(instance.id, jobs.boot, instance.id)
        changes.append(_change(instance, old))
    return {"StartingInstances": changes}


def _check_root(instance: Instance) -> None:
    if not any(volume.device == instance.root_device for volume in instance.volumes):
        raise AwsError(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' has no volume attached at root {instance.root_device}",
        )


def stop_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    changes = []
    force = bool(call.params.get("Force"))
    for instance in _named(backend, call):
        old = instance.state
        if old not in ("running", "pending", "stopping", "stopped"):
            raise _wrong_state(instance, "stopped")
        if instance.bundle:
            raise unsupported(
                f"The instance '{instance.id}' does not have an 'ebs' root device type and cannot be stopped"
            )
        spot.check_stop(instance)
        if instance.protects_stop:
            raise _protected(instance, "stopped", "disableApiStop")
        if old == "pending":
            raise _wrong_state(instance, "stopped")
        if old == "running" or (old == "stopping" and force):
            instance = _ending(backend, instance, "stopping")
            backend.database.put(instance)
            backend.submit_later(instance.id, jobs.stop, instance.id, force=force)
        changes.append(_change(instance, old))
    return {"StoppingInstances": changes}


def terminate_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    named = _named(backend, call)
    for instance in named:
        if instance.protects_termination:
            raise _protected(instance, "terminated", "disableApiTermination")
    changes = []
    for instance in named:
        old = instance.state
        if old not in ("shutting-down", "terminated"):
            instance = _ending(backend, instance, "shutting-down")
            backend.database.put(instance)
            backend.submit_later(instance.id, jobs.terminate, instance.id)
        changes.append(_change(instance, old))
    return {"TerminatingInstances": changes}


def reboot_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    for instance in _named(backend, call):
        if instance.state != "running":
            raise _wrong_state(instance, "rebooted")
        backend.submit_later(instance.id, jobs.reboot, instance.id)
    return {}


def monitor_instances(backend: Backend, call: Call, *, is_on: bool = True) -> Mapping[str, Any]:
    done = []
    for instance in _named(backend, call):
        backend.database.put(replace(instance, monitoring=is_on))
        state = "pending" if is_on else "disabling"
        done.append({"InstanceId": instance.id, "Monitoring": {"State": state}})
    return {"InstanceMonitorings": done}


unmonitor_instances = partial(monitor_instances, is_on=False)


def reset_instance_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    match call.text("Attribute"):
        case "sourceDestCheck":
            backend.database.put(replace(instance, checks_source_dest=True))
        case "kernel" | "ramdisk":
            pass  # HVM instances have neither
        case other:
            raise invalid(f"Value ({other}) for parameter attribute is invalid. It cannot be reset.")
    return {}


def _named(backend: Backend, call: Call) -> list[Instance]:
    if not call.params.get("InstanceIds"):
        raise missing("InstanceIds")
    return lookup.instances(backend, call, call.params["InstanceIds"])


def _ending(backend: Backend, instance: Instance, state: str) -> Instance:
    return replace(
        instance,
        state=state,
        reason_code=USER_INITIATED,
        reason=f"{USER_INITIATED}: User initiated shutdown",
        ending_since=backend.clock.now(),
    )


def _change(instance: Instance, old: str) -> dict[str, Any]:
    return {
        "InstanceId": instance.id,
        "CurrentState": state_of(instance.state),
        "PreviousState": state_of(old),
    }


def _wrong_state(instance: Instance, done: str) -> AwsError:
    return AwsError(
        "IncorrectInstanceState",
        f"The instance '{instance.id}' is not in a state from which it can be {done}: it is {instance.state}.",
    )


def _protected(instance: Instance, done: str, attribute: str) -> AwsError:
    return AwsError(
        "OperationNotPermitted",
        f"The instance '{instance.id}' may not be {done}. Modify its '{attribute}' instance attribute and try again.",
    )


def modify_instance_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Modify the attributes that tools set; EC2 takes one of them a call."""
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    given = dict(call.params)
    if "Attribute" in given:  # the older form: Attribute and Value
        name = str(given.pop("Attribute"))
        given[name[0].upper() + name[1:]] = {"Value": given.pop("Value", None)}
    changed = instance
    for name, value in given.items():
        plain = value.get("Value") if isinstance(value, dict) else value
        match name:
            case "InstanceId" | "DryRun":
                continue
            case "DisableApiTermination":
                changed = replace(changed, protects_termination=_true(plain))
            case "DisableApiStop":
                changed = replace(changed, protects_stop=_true(plain))
            case "SourceDestCheck":
                changed = replace(changed, checks_source_dest=_true(plain))
            case "EnaSupport" | "SriovNetSupport" | "InstanceType" | "UserData" | "EbsOptimized":
                changed = _modified_while_stopped(changed, name, plain)
            case "InstanceInitiatedShutdownBehavior":
                if plain not in ("stop", "terminate"):
                    raise invalid(f"Value ({plain}) for parameter instanceInitiatedShutdownBehavior is invalid.")
                changed = replace(changed, shutdown_behavior=plain)
            case "Groups":
                changed = replace(changed, group_ids=tuple(lookup.group(backend, call, g).id for g in value))
                backend.submit_later(changed.id, jobs.open_ports, changed.id)
            case "BlockDeviceMappings":
                changed = _flagged(changed, value)
            case _:
                raise conflicting(f"The local cloud cannot modify the attribute {name}")
    backend.database.put(changed)
    return {}


def _modified_while_stopped(instance: Instance, name: str, value: Any) -> Instance:
    if instance.state != "stopped":
        raise _wrong_state(instance, f"given another {name}")
    match name:
        case "EnaSupport":
            return replace(instance, ena_support=_true(value))
        case "SriovNetSupport":
            return replace(instance, sriov=str(value))
        case "InstanceType":
            if instance_type(str(value)) is None:
                raise invalid(f"Invalid value '{value}' for InstanceType.")
            return replace(instance, instance_type=str(value))
        case "EbsOptimized":
            return replace(instance, ebs_optimized=_true(value))
        case _:
            plain = value if isinstance(value, bytes) else str(value or "").encode()
            return replace(instance, user_data=base64.b64encode(plain).decode())


def _flagged(instance: Instance, mappings: Iterable[Mapping[str, Any]]) -> Instance:
    flags = {mapping.get("DeviceName"): mapping.get("Ebs", {}).get("DeleteOnTermination") for mapping in mappings}
    unknown = set(flags) - {volume.device for volume in instance.volumes}
    if unknown:
        raise AwsError(
            "InvalidInstanceAttributeValue", f"No device is currently mapped at {sorted(map(str, unknown))[0]}"
        )
    volumes = tuple(
        replace(volume, delete_on_termination=bool(flags[volume.device]))
        if flags.get(volume.device) is not None
        else volume
        for volume in instance.volumes
    )
    return replace(instance, volumes=volumes)


def _true(value: object) -> bool:
    return str(value).lower() == "true"
