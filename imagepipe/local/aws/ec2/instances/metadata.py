"""An instance's metadata at 169.254.169.254 (EC2 user guide, "Instance metadata categories")."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2.instances import credentials
from imagepipe.local.aws.ec2.network.interfaces import mac_address, private_dns_name, public_dns_name
from imagepipe.local.aws.state.records import Instance
from imagepipe.local.host.errors import MachineError
from imagepipe.local.machines.driver import Metadata

TAG_KEY = re.compile(r"(?!\.{1,2}$)[\w+\-=.,:@]+")
"""The keys that can be a part of a path (EC2 user guide, "Work with instance tags in instance metadata")."""
TICK_SECONDS = 600.0  # between two looks at credentials, which are renewed an hour before they expire
log = logging.getLogger(__name__)


def refresh(backend: Backend, instance_id: str) -> None:
    """Have a running machine serve the metadata of its instance as it is now. A job of the instance's queue."""
    credentials.renew(backend, instance_id)
    instance = backend.database.instances.get(instance_id)
    if instance is None:
        return
    try:
        if instance_id in backend.driver.running():  # otherwise the next boot does it
            backend.driver.set_metadata(instance_id, metadata_of(backend, instance))
    except (MachineError, OSError):
        log.exception("changing the metadata of instance %s failed", instance_id)
        return
    with backend.database.change():
        now = backend.database.instances.get(instance_id)
        if now is not None and now.metadata_options == instance.metadata_options and now.metadata_state != "applied":
            backend.database.put(replace(now, metadata_state="applied"))


def refresh_later(backend: Backend, instance: Instance) -> None:
    """Submit the refresh once the change that is being made is on disk."""
    if instance.state in ("pending", "running"):
        backend.submit_later(instance.id, refresh, instance.id)


def renew_credentials(backend: Backend) -> None:
    """Renew the credentials of running machines that will expire."""
    for instance in backend.database.instances:
        if instance.iam_profile and instance.state == "running":
            backend.submit(instance.id, _renew, instance.id)


def _renew(backend: Backend, instance_id: str) -> None:
    if credentials.renew(backend, instance_id):
        refresh(backend, instance_id)


def keep_renewing(backend: Backend) -> None:
    """Renew credentials for as long as the cloud runs."""
    renew_credentials(backend)
    backend.job_queues.run_later(TICK_SECONDS, partial(keep_renewing, backend))


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
    public_name = public_dns_name(backend, instance, instance.public_ip)
    if instance.public_ip:
        values |= {"public-ipv4": instance.public_ip} | ({"public-hostname": public_name} if public_name else {})
    values |= _interface(instance, mac, group_names, public_name)
    values |= credentials.values_of(backend, instance)
    options = instance.metadata_options
    if options.get("InstanceMetadataTags") == "enabled":
        values |= {f"tags/instance/{key}": value for key, value in instance.tags.items() if TAG_KEY.fullmatch(key)}
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
    if instance.public_ip:
        if public_name:
            values["public-hostname"] = public_name
        values["public-ipv4s"] = instance.public_ip
        values[f"ipv4-associations/{instance.public_ip}"] = instance.private_ip
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
