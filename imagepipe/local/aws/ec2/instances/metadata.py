"""An instance's metadata at 169.254.169.254 (EC2 user guide, "Instance metadata categories")."""

from __future__ import annotations

import json
from collections.abc import Sequence

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.network.interfaces import mac_address, private_dns_name, public_dns_name
from imagepipe.local.aws.state.records import Instance
from imagepipe.local.machines.driver import Metadata


def metadata_of(backend: Backend, instance: Instance) -> Metadata:
    """Make the metadata of an instance, as it is now."""
    groups = [group for group in map(backend.database.groups.get, instance.group_ids) if group is not None]
    group_names = [group.name for group in groups]
    host, mac = private_dns_name(instance.private_ip, instance.region), mac_address(instance.interface_id)
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
        "mac": mac,
        "placement/availability-zone": instance.zone,
        "placement/region": instance.region,
        "reservation-id": instance.reservation_id,
        "security-groups": "\n".join(group_names),
        "services/domain": "amazonaws.com",
        "services/partition": "aws",
        "block-device-mapping/ami": instance.root_device,
        "block-device-mapping/root": instance.root_device,
    }
    others = sorted(volume.device for volume in instance.volumes if volume.device != instance.root_device)
    values |= {f"block-device-mapping/ebs{at}": device for at, device in enumerate(others, start=1)}
    values |= {f"public-keys/{at}/openssh-key": key for at, key in enumerate(instance.public_keys)}
    public_name = public_dns_name(backend, instance, instance.address)
    if instance.has_public_ip:
        values |= {"public-ipv4": instance.address} | ({"public-hostname": public_name} if public_name else {})
    values |= _interface(instance, mac, group_names, public_name)
    options = instance.metadata_options
    return Metadata(
        values=values,
        identity=_identity(instance),
        tokens_required=options.get("HttpTokens") == "required",
        is_enabled=options.get("HttpEndpoint", "enabled") == "enabled",
    )


def _interface(instance: Instance, mac: str, group_names: Sequence[str], public_name: str) -> dict[str, str]:
    """Describe the one network interface, by path below its MAC address."""
    values = {
        "device-number": "0",
        "interface-id": instance.interface_id,
        "local-hostname": private_dns_name(instance.private_ip, instance.region),
        "local-ipv4s": instance.private_ip,
        "mac": mac,
        "owner-id": instance.account,
        "security-group-ids": "\n".join(instance.group_ids),
        "security-groups": "\n".join(group_names),
        "subnet-id": instance.subnet_id,
        "vpc-id": instance.vpc_id,
    }
    if instance.has_public_ip:
        if public_name:
            values["public-hostname"] = public_name
        values["public-ipv4s"] = instance.address
        values[f"ipv4-associations/{instance.address}"] = instance.private_ip
    return {f"network/interfaces/macs/{mac}/{path}": value for path, value in values.items()}


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
