"""What an instance is told of itself at 169.254.169.254 (EC2 user guide, "Instance metadata categories")."""

from __future__ import annotations

import hashlib
import json

from imagepipe.local.gateway.records import Instance
from imagepipe.local.gateway.world import World
from imagepipe.local.machines.api import Metadata


def metadata_of(world: World, instance: Instance) -> Metadata:
    """The metadata of an instance, as its launch and the changes since want it."""
    groups = [group for group in map(world.ledger.groups.get, instance.group_ids) if group is not None]
    host = f"ip-{instance.private_ip.replace('.', '-')}.{instance.region}.compute.internal"
    values = {
        "ami-id": instance.image_id,
        "ami-launch-index": str(instance.launch_index),
        "hostname": host,
        "instance-action": "none",
        "instance-id": instance.id,
        "instance-life-cycle": "spot" if instance.is_spot else "on-demand",
        "instance-type": instance.instance_type,
        "local-hostname": host,
        "local-ipv4": instance.private_ip,
        "mac": _mac(instance),
        "placement/availability-zone": instance.zone,
        "placement/region": instance.region,
        "reservation-id": instance.reservation_id,
        "security-groups": "\n".join(group.name for group in groups),
        "services/domain": "amazonaws.com",
        "services/partition": "aws",
        "block-device-mapping/ami": instance.root_device,
        "block-device-mapping/root": instance.root_device,
    }
    others = sorted(volume.device for volume in instance.volumes if volume.device != instance.root_device)
    values |= {f"block-device-mapping/ebs{at}": device for at, device in enumerate(others, start=1)}
    values |= {f"public-keys/{at}/openssh-key": key for at, key in enumerate(instance.public_keys)}
    if instance.has_public_ip:
        values["public-ipv4"] = instance.address
    options = instance.metadata_options
    return Metadata(
        values=values,
        identity=_identity(instance),
        tokens_required=options.get("HttpTokens") == "required",
        is_enabled=options.get("HttpEndpoint", "enabled") == "enabled",
    )


def _mac(instance: Instance) -> str:
    """Made of the interface's id, so that it is the same at every start; locally administered."""
    digest = hashlib.sha256(instance.interface_id.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (0x02, *digest[:5]))


def _identity(instance: Instance) -> str:
    document = {
        "accountId": instance.account,
        "architecture": instance.architecture,
        "availabilityZone": instance.zone,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "pendingTime": f"{instance.launch_time:%Y-%m-%dT%H:%M:%SZ}",
        "privateIp": instance.private_ip,
        "region": instance.region,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2)
