"""RunInstances."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from imagepipe.local.gateway import devices, lookup, machinery, tagging, tokens
from imagepipe.local.gateway.instances import reservation
from imagepipe.local.gateway.naming import new_id
from imagepipe.local.gateway.network import POOL, Subnet, free_address, free_private_ip, instance_type
from imagepipe.local.gateway.records import AttachedVolume, DiskSpec, Image, Instance, KeyPair, Snapshot, Volume
from imagepipe.local.gateway.refusal import Refused, conflicting, invalid, unsupported
from imagepipe.local.gateway.wire import Call
from imagepipe.local.gateway.world import World

LONGEST_USER_DATA = 16384  # bytes, before base64
NOT_HERE = (
    "LaunchTemplate",
    "ElasticGpuSpecification",
    "ElasticInferenceAccelerators",
    "Ipv6Addresses",
    "LicenseSpecifications",
    "HibernationOptions",
    "EnclaveOptions",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the network an instance goes."""

    subnet: Subnet
    group_ids: tuple[str, ...]
    has_public_ip: bool
    private_ip: str | None


def run_instances(world: World, call: Call) -> Mapping[str, Any]:
    """Launch: everything is checked and written down here; machines start afterwards."""
    before = tokens.made_before(world, call)
    if before is not None:
        again = [found for found in map(world.ledger.instances.get, before) if found is not None]
        return reservation(world, again) if again else {}
    _refuse_unknown(call)
    count = _count(call)
    image = _image(world, call)
    kind = _instance_type(call, image)
    place = _place(world, call)
    tags = tagging.specified(
        call.params, "instance", "volume", "network-interface", "spot-instances-request", "elastic-gpu"
    )
    disks = devices.parsed(
        call.params.get("BlockDeviceMappings", []),
        image.mappings,
        partial(_snapshot, world, call, image),
        root=image.root_device,
    )
    pattern = _pattern(world, call, image, kind)
    made = [_launch(world, replace(pattern, launch_index=index), place, disks, tags) for index in range(count)]
    tokens.remember(world, call, [instance.id for instance in made])
    if image.account == call.account:
        world.ledger.put(replace(image, last_launched=world.clock.now()))
    for instance in made:
        world.ledger.later(partial(world.course.submit, instance.id, partial(machinery.boot, world, instance.id)))
    return reservation(world, made)


def _refuse_unknown(call: Call) -> None:
    for name in NOT_HERE:
        if call.params.get(name):
            raise unsupported(f"The local cloud does not know the parameter {name} of RunInstances")


def _count(call: Call) -> int:
    """As many as EC2 would launch: there is always room for the most."""
    least, most = int(call.params["MinCount"]), int(call.params["MaxCount"])
    if least < 1 or most < least:
        raise invalid(f"Value ({least}, {most}) for parameters minCount and maxCount is invalid.")
    if most > 20:
        raise Refused(
            "InstanceLimitExceeded", f"You have requested {most} instances; the local cloud starts 20 at once"
        )
    return most


def _image(world: World, call: Call) -> Image:
    image = lookup.image(world, call, call.text("ImageId"))
    if image.state != "available":
        raise Refused("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available: it is {image.state}")
    return image


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
    modes = kind.get("SupportedBootModes", [])
    if image.boot_mode in ("uefi", "legacy-bios") and modes and image.boot_mode not in modes:
        raise conflicting(f"The instance type '{name}' does not support the boot mode '{image.boot_mode}' of the AMI.")
    return name


def _place(world: World, call: Call) -> Place:
    interfaces = call.params.get("NetworkInterfaces", [])
    if len(interfaces) > 1:
        raise unsupported("The local cloud gives an instance one network interface")
    interface: Mapping[str, Any] = interfaces[0] if interfaces else {}
    if interface.get("NetworkInterfaceId"):
        raise unsupported("The local cloud makes the network interface itself; name a subnet instead")
    if interface and (
        call.params.get("SubnetId") or call.params.get("SecurityGroupIds") or call.params.get("SecurityGroups")
    ):
        raise conflicting(
            "Network interfaces and an instance-level subnet ID or security groups may not be specified on the "
            "same request"
        )
    subnet_id = interface.get("SubnetId") or call.params.get("SubnetId")
    zone = call.params.get("Placement", {}).get("AvailabilityZone") or None  # Packer sends an empty one
    if subnet_id:
        subnet = world.network.subnet(call.account, call.region, str(subnet_id))
    else:
        if world.network.default_vpc_id(call.account, call.region) is None:
            raise Refused("VPCIdNotSpecified", "No default VPC for this user")
        subnet = world.network.default_subnet(call.account, call.region, zone)
    if zone and zone != subnet.zone:
        raise conflicting(f"The subnet {subnet.id} is in {subnet.zone}, not in {zone}")
    names = call.params.get("SecurityGroups", [])
    identifiers = interface.get("Groups") or call.params.get("SecurityGroupIds") or []
    return Place(
        subnet=subnet,
        group_ids=_groups(world, call, subnet, identifiers, names),
        has_public_ip=bool(interface.get("AssociatePublicIpAddress", subnet.maps_public_ip)),
        private_ip=interface.get("PrivateIpAddress") or call.params.get("PrivateIpAddress"),
    )


def _groups(
    world: World, call: Call, subnet: Subnet, identifiers: Sequence[str], names: Sequence[str]
) -> tuple[str, ...]:
    here = {
        group.name: group
        for group in world.ledger.groups.owned(call.account, call.region)
        if group.vpc_id == subnet.vpc_id
    }
    groups = [lookup.group(world, call, identifier) for identifier in identifiers]
    for name in names:
        if name not in here:
            raise Refused(
                "InvalidGroup.NotFound", f"The security group '{name}' does not exist in VPC '{subnet.vpc_id}'"
            )
        groups.append(here[name])
    for group in groups:
        if group.vpc_id != subnet.vpc_id:
            raise Refused(
                "InvalidParameter", f"Security group {group.id} and subnet {subnet.id} belong to different networks."
            )
    return tuple(dict.fromkeys(group.id for group in groups)) or (here["default"].id,)


def _snapshot(world: World, call: Call, image: Image, snapshot_id: str) -> Snapshot:
    """Whoever may launch an image may use its snapshots, through it."""
    if any(disk.snapshot_id == snapshot_id for disk in image.mappings):
        found = world.ledger.snapshots.get(snapshot_id)
        if found is not None:
            return found
    snapshot = lookup.snapshot(world, call, snapshot_id)
    if snapshot.state != "completed":
        raise Refused("IncorrectState", f"Snapshot {snapshot_id} is in invalid state - {snapshot.state}")
    return snapshot


def _pattern(world: World, call: Call, image: Image, kind: str) -> Instance:
    """The instance with all that does not depend on where it goes."""
    params = call.params
    market = params.get("InstanceMarketOptions", {}).get("MarketType")
    if market not in (None, "spot"):
        raise invalid(f"Value ({market}) for parameter marketType is invalid.")
    behavior = params.get("InstanceInitiatedShutdownBehavior") or "stop"
    if behavior not in ("stop", "terminate"):
        raise invalid(f"Value ({behavior}) for parameter instanceInitiatedShutdownBehavior is invalid.")
    key = _key_pair(world, call)
    return Instance(
        id="",
        account=call.account,
        region=call.region,
        reservation_id=new_id("r"),
        client_token=str(params.get("ClientToken") or ""),
        image_id=image.id,
        instance_type=kind,
        state="pending",
        launch_time=world.clock.now(),
        zone="",
        vpc_id="",
        subnet_id="",
        address="",
        private_ip="",
        interface_id="",
        group_ids=(),
        key_name=key.name if key else None,
        public_keys=(key.public_key,) if key else (),
        user_data=_user_data(str(params.get("UserData") or "")),
        shutdown_behavior=behavior,
        protects_termination=bool(params.get("DisableApiTermination")),
        protects_stop=bool(params.get("DisableApiStop")),
        monitoring=bool(params.get("Monitoring", {}).get("Enabled")),
        ebs_optimized=bool(params.get("EbsOptimized")),
        is_spot=market == "spot",
        iam_profile=_profile(world, call),
        metadata_options=_metadata_options(params.get("MetadataOptions", {}), image),
        architecture=image.architecture,
        boot_mode=image.boot_mode,
        ena_support=image.ena_support,
        sriov=image.sriov,
        tpm_support=image.tpm_support,
        root_device=image.root_device,
    )


def _key_pair(world: World, call: Call) -> KeyPair | None:
    name = call.params.get("KeyName")
    if not name:
        return None
    for pair in world.ledger.key_pairs.owned(call.account, call.region):
        if pair.name == name:
            return pair
    raise Refused("InvalidKeyPair.NotFound", f"The key pair '{name}' does not exist")


def _user_data(text: str) -> str:
    try:
        plain = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise invalid("Invalid BASE64 encoding of user data.") from None
    if len(plain) > LONGEST_USER_DATA:
        raise invalid(f"User data is limited to {LONGEST_USER_DATA} bytes")
    return text


def _profile(world: World, call: Call) -> str | None:
    """An empty name is none: Packer sends it."""
    given = call.params.get("IamInstanceProfile", {})
    name = given.get("Arn") or given.get("Name")
    if not name:
        return None
    if not world.network.has_instance_profile(call.account, name):
        raise invalid(
            f"Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
        )
    return str(name)


def _metadata_options(given: Mapping[str, Any], image: Image) -> dict[str, str]:
    tokens_default = "required" if image.imds_support == "v2.0" else "optional"
    return {
        "HttpTokens": str(given.get("HttpTokens", tokens_default)),
        "HttpPutResponseHopLimit": str(given.get("HttpPutResponseHopLimit", 2 if image.imds_support else 1)),
        "HttpEndpoint": str(given.get("HttpEndpoint", "enabled")),
        "HttpProtocolIpv6": str(given.get("HttpProtocolIpv6", "disabled")),
        "InstanceMetadataTags": str(given.get("InstanceMetadataTags", "disabled")),
    }


def _launch(
    world: World, pattern: Instance, place: Place, disks: Sequence[DiskSpec], tags: Mapping[str, Mapping[str, str]]
) -> Instance:
    now = pattern.launch_time
    identifier = new_id("i")
    address, private_ip = _addresses(world, place)
    attached = []
    for disk in disks:
        if disk.virtual_name:
            continue
        volume = Volume(
            id=new_id("vol"),
            account=pattern.account,
            region=pattern.region,
            tags=tags["volume"],
            zone=place.subnet.zone,
            size_gib=disk.size_gib,
            type=disk.type,
            iops=disk.iops or (max(100, min(16000, 3 * disk.size_gib)) if disk.type == "gp2" else None),
            throughput=disk.throughput,
            snapshot_id=disk.snapshot_id,
            encrypted=disk.encrypted,
            kms_key_id=disk.kms_key_id,
            state="creating",
            create_time=now,
            instance_id=identifier,
        )
        world.ledger.put(volume)
        attached.append(
            AttachedVolume(
                device=disk.device,
                volume_id=volume.id,
                delete_on_termination=disk.delete_on_termination,
                attach_time=now,
            )
        )
    instance = replace(
        pattern,
        id=identifier,
        tags=tags["instance"],
        zone=place.subnet.zone,
        vpc_id=place.subnet.vpc_id,
        subnet_id=place.subnet.id,
        address=address,
        private_ip=private_ip,
        has_public_ip=place.has_public_ip,
        interface_id=new_id("eni"),
        group_ids=place.group_ids,
        volumes=tuple(attached),
    )
    world.ledger.put(instance)
    return instance


def _addresses(world: World, place: Place) -> tuple[str, str]:
    """The loopback address of the instance, and the private one that the API tells: in our pool, the same."""
    living = [instance for instance in world.ledger.instances if instance.state != "terminated"]
    taken = [instance.address for instance in living]
    private = [instance.private_ip for instance in living if instance.subnet_id == place.subnet.id]
    wanted = place.private_ip
    if wanted and (wanted in private or (place.subnet.cidr.subnet_of(POOL) and wanted in taken)):
        raise Refused("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
    if place.subnet.cidr.subnet_of(POOL):
        address = wanted or free_address(place.subnet.cidr, taken)
        return address, address
    return free_address(POOL, taken), wanted or free_private_ip(place.subnet.cidr, private)
