"""RunInstances."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency, lookup, parameters
from imagepipe.local.aws.ec2.images.last_launched import with_launch
from imagepipe.local.aws.ec2.instances import (
    faults,
    jobs,
    launch_templates,
    metadata_options,
    placement,
    placement_groups,
    spot,
)
from imagepipe.local.aws.ec2.instances.describe import forget_ended, launched
from imagepipe.local.aws.ec2.instances.placement import Place
from imagepipe.local.aws.ec2.instances.profiles import find_profile
from imagepipe.local.aws.ec2.instances.types import cpu_credits
from imagepipe.local.aws.ec2.volumes import block_devices
from imagepipe.local.aws.ec2.volumes.volumes import new_volume
from imagepipe.local.aws.moto.catalogue import instance_type
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError, conflicting, invalid
from imagepipe.local.aws.protocol.ids import new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.protocol.times import whole_second
from imagepipe.local.aws.state.records import AttachedVolume, DiskSpec, Image, Instance, Snapshot, Volume

MAX_USER_DATA_BYTES = 16384  # bytes, before base64


def run_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Launch instances: check everything and write the records. Jobs start the machines afterwards."""
    before = idempotency.earlier_result(backend, call)
    if before is not None:
        again = [found for found in map(backend.database.instances.get, before) if found is not None]
        return launched(backend, again) if again else {}
    parameters.check_supported(call)
    forget_ended(backend)
    count = _count(call)
    image = lookup.check_available(lookup.image(backend, call, call.text("ImageId")))
    kind = _instance_type(call, image)
    place = placement.resolve(backend, call)
    tags = tagging.parse_specifications(
        call.params, "instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu"
    )
    disks = block_devices.merge(
        call.params.get("BlockDeviceMappings", []),
        image.mappings,
        partial(_snapshot, backend, call, image),
        root=image.root_device,
    )
    pattern = _pattern(backend, call, image, kind, place)
    volumes = [
        (disk, new_volume(backend, call, disk, zone=place.subnet.zone, tags=tags["volume"]))
        for disk in disks
        if not disk.virtual_name
    ]
    made = [_launch(backend, replace(pattern, launch_index=index), place, volumes, tags) for index in range(count)]
    idempotency.remember(backend, call, [instance.id for instance in made])
    if image.account == call.account:
        backend.database.put(with_launch(image, backend.clock.now()))
    for instance in made:
        backend.faults.bind(instance.id, call.action, call.params, *faults.EFFECTS)
        backend.submit_later(instance.id, jobs.boot, instance.id)
    return launched(backend, made)


def prepare(backend: Backend, call: Call) -> Call:
    """Return the call with the values of its launch template, and with the image's own id. Raises AwsError."""
    full = launch_templates.apply(backend, call)
    if not full.params.get("ImageId"):
        return full
    return replace(full, params={**full.params, "ImageId": lookup.image_id(backend, full)})


def _placement_group(backend: Backend, call: Call) -> str:
    name = call.params.get("Placement", {}).get("GroupName")
    return placement_groups.check_exists(backend, call, str(name)).name if name else ""


def _count(call: Call) -> int:
    """Return the number of instances: the maximum, as there is always room for it."""
    least, most = int(call.params["MinCount"]), int(call.params["MaxCount"])
    if least < 1 or most < least:
        raise invalid(f"Value ({least}, {most}) for parameters minCount and maxCount is invalid.")
    if most > 20:
        raise AwsError(
            "InstanceLimitExceeded", f"You have requested {most} instances; the local cloud starts 20 at once"
        )
    return most


def _instance_type(call: Call, image: Image) -> str:
    name = str(call.params.get("InstanceType") or "m1.small")  # EC2's own default, of 2006
    kind = instance_type(name)
    if kind is None:
        raise invalid(f"Invalid value '{name}' for InstanceType.")
    architectures = kind.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    if architectures and image.architecture not in architectures:
        raise invalid(
            f"The architecture '{','.join(architectures)}' of the specified instance type does not match the "
            f"architecture '{image.architecture}' of the specified AMI. Specify an instance type and an AMI that "
            "have matching architectures, and try again."
        )
    if kind.get("NetworkInfo", {}).get("EnaSupport") == "required" and not image.ena_support:
        raise conflicting(
            f"Enhanced networking with the Elastic Network Adapter (ENA) is required for the '{name}' instance "
            "type. Ensure that you are using an AMI that is enabled for ENA."
        )
    roots = kind.get("SupportedRootDeviceTypes", ["ebs"])
    if image.root_type not in roots:  # EC2's code for it is not documented: this is a guess
        raise conflicting(
            f"The instance type '{name}' supports root devices of type {', '.join(roots)}, and the AMI's is"
            f" {image.root_type}. C1, C3, D2, I2, M1, M2, M3, R3 and X1 run instance-store AMIs."
        )
    modes = kind.get("SupportedBootModes", [])
    if image.boot_mode in ("uefi", "legacy-bios") and modes and image.boot_mode not in modes:
        raise conflicting(f"The instance type '{name}' does not support the boot mode '{image.boot_mode}' of the AMI.")
    return name


def _snapshot(backend: Backend, call: Call, image: Image, snapshot_id: str) -> Snapshot:
    """Find a snapshot; a caller that may launch an image may use its snapshots."""
    if any(disk.snapshot_id == snapshot_id for disk in image.mappings):
        found = backend.database.snapshots.get(snapshot_id)
        if found is not None:
            return found
    return lookup.check_completed(lookup.snapshot(backend, call, snapshot_id))


def _pattern(backend: Backend, call: Call, image: Image, kind: str, place: Place) -> Instance:
    """Make the part of the record that all instances of the launch share."""
    params = call.params
    market = spot.market(params)
    behavior = params.get("InstanceInitiatedShutdownBehavior") or ("terminate" if image.bundle else "stop")
    if behavior not in ("stop", "terminate") or (image.bundle and behavior == "stop"):
        raise invalid(f"Value ({behavior}) for parameter instanceInitiatedShutdownBehavior is invalid.")
    profile = find_profile(backend, call, params.get("IamInstanceProfile", {}))
    key = lookup.key_pair(backend, call, params["KeyName"]) if params.get("KeyName") else None
    return Instance(
        id="",
        account=call.account,
        region=call.region,
        reservation_id=new_id("r"),
        client_token=str(params.get("ClientToken") or ""),
        image_id=image.id,
        instance_type=kind,
        state="pending",
        launch_time=whole_second(backend.clock.now()),
        zone=place.subnet.zone,
        vpc_id=place.subnet.vpc_id,
        subnet_id=place.subnet.id,
        address="",
        private_ip="",
        has_public_ip=place.has_public_ip,
        interface_id="",
        group_ids=place.group_ids,
        key_name=key.name if key else None,
        public_keys=(key.public_key,) if key else (),
        user_data=_user_data(str(params.get("UserData") or "")),
        shutdown_behavior=behavior,
        protects_termination=bool(params.get("DisableApiTermination")),
        protects_stop=bool(params.get("DisableApiStop")),
        monitoring=bool(params.get("Monitoring", {}).get("Enabled")),
        cpu_credits=cpu_credits(kind, params.get("CreditSpecification", {}).get("CpuCredits")),
        ebs_optimized=bool(params.get("EbsOptimized")),
        is_spot=market is not None,
        spot_type=market or "",
        is_impaired=backend.faults.take("impair", call.action, params) is not None,
        iam_profile=profile,
        profile_association=new_id("iip-assoc") if profile else "",
        placement_group=_placement_group(backend, call),
        metadata_options=metadata_options.at_launch(params.get("MetadataOptions", {}), image),
        **image.inherited(),
    )


def _user_data(text: str) -> str:
    try:
        plain = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise invalid("Invalid BASE64 encoding of user data.") from None
    if len(plain) > MAX_USER_DATA_BYTES:
        raise invalid(f"User data is limited to {MAX_USER_DATA_BYTES} bytes")
    return text


def _launch(
    backend: Backend,
    pattern: Instance,
    place: Place,
    volumes: Sequence[tuple[DiskSpec, Volume]],
    tags: Mapping[str, Mapping[str, str]],
) -> Instance:
    identifier = new_id("i")
    address, private_ip = placement.addresses(backend, place)
    attached = []
    for disk, volume in volumes:
        made = replace(volume, id=new_id("vol"), instance_id=identifier)
        backend.database.put(made)
        attached.append(
            AttachedVolume(
                device=disk.device,
                volume_id=made.id,
                delete_on_termination=disk.delete_on_termination,
                attach_time=pattern.launch_time,
            )
        )
    instance = replace(
        pattern,
        id=identifier,
        tags=tags["instance"],
        interface_tags=tags["network-interface"],
        spot_tags=tags["spot-instances-request"] if pattern.is_spot else {},
        address=address,
        private_ip=private_ip,
        interface_id=new_id("eni"),
        spot_request_id=spot.new_request_id() if pattern.is_spot else None,
        volumes=tuple(attached),
    )
    backend.database.put(instance)
    return instance
