"""Describe instances and their attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import lookup, product_codes
from imagepipe.local.aws.ec2.instances import credentials, jobs, metadata_options
from imagepipe.local.aws.ec2.network.interfaces import mac_address, private_dns_name, public_dns_name
from imagepipe.local.aws.moto.catalogue import zone_id
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import invalid
from imagepipe.local.aws.protocol.filters import Getter
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import AttachedVolume, Instance

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
REMEMBERED = timedelta(hours=1)  # EC2 user guide: terminated instances "remain visible for a short time"
USER_INITIATED = "Client.UserInitiatedShutdown"
WITH_INTEL_INTERFACE = frozenset({"c3", "c4", "d2", "i2", "m4", "r3"})
"""Families with the Intel 82599 interface (EC2 user guide, "Enhanced networking with the Intel 82599 VF interface")."""
OPERATOR = {"Managed": False}
"""The Operator member of a resource that no AWS service manages."""


def state_of(state: str) -> dict[str, Any]:
    """Describe a state with its number."""
    return {"Code": CODES[state], "Name": state}


def public_ip(instance: Instance) -> str | None:
    """Return the public address. A stopped instance has only an Elastic IP address."""
    gone = instance.state == "terminated" or (instance.state == "stopped" and not instance.elastic_ip)
    return None if gone else instance.public_ip


GETTERS: Mapping[str, Getter] = {
    **filters.by_attribute("architecture", "client-token", "image-id", "instance-type", "key-name", "launch-index"),
    **filters.by_attribute("launch-time", "reservation-id", "subnet-id", "vpc-id"),
    "availability-zone": lambda row: row.zone,
    "block-device-mapping.device-name": lambda row: [volume.device for volume in row.volumes],
    "block-device-mapping.volume-id": lambda row: [volume.volume_id for volume in row.volumes],
    "iam-instance-profile.name": lambda row: row.iam_profile,
    "instance-id": lambda row: row.id,
    "instance-lifecycle": lambda row: "spot" if row.is_spot else None,
    "instance-state-code": lambda row: CODES[row.state],
    "instance-state-name": lambda row: row.state,
    "instance.group-id": lambda row: row.group_ids,
    "ip-address": public_ip,
    "metadata-options.http-tokens": lambda row: row.metadata_options.get("HttpTokens"),
    "network-interface.network-interface-id": lambda row: row.interface_id,
    "network-interface.subnet-id": lambda row: row.subnet_id,
    "network-interface.vpc-id": lambda row: row.vpc_id,
    "network-interface.group-id": lambda row: row.group_ids,
    "owner-id": lambda row: row.account,
    "network-interface.attachment.instance-id": lambda row: row.id,
    "network-interface.attachment.instance-owner-id": lambda row: row.account,
    "network-interface.availability-zone": lambda row: row.zone,
    "network-interface.outpost-arn": lambda row: None,
    "network-interface.requester-id": lambda row: None,
    "network-interface.requester-managed": lambda row: False,
    "network-interface.tag-key": lambda row: row.interface_tags,
    "network-interface.tag-value": lambda row: row.interface_tags.values(),
    "requester-id": lambda row: None,
    "private-dns-name": lambda row: private_dns_name(row.private_ip, row.region),
    "private-ip-address": lambda row: row.private_ip,
    "product-code": lambda row: row.product_codes,
    "spot-instance-request-id": lambda row: row.spot_request_id,
    "root-device-name": lambda row: row.root_device,
    "root-device-type": lambda row: row.root_type,
    "source-dest-check": lambda row: row.checks_source_dest,
    "state-reason-code": lambda row: row.reason_code,
}


def visible(backend: Backend, call: Call) -> list[Instance]:
    """List the caller's instances in the region, without those that ended more than an hour ago."""
    gone = forget_ended(backend)
    return [row for row in backend.database.instances.owned(call.account, call.region) if row.id not in gone]


def forget_ended(backend: Backend) -> set[str]:
    """Delete the records of all instances that ended more than an hour ago, and return their ids."""
    horizon = backend.clock.now() - REMEMBERED
    gone = {row.id for row in backend.database.instances if row.ended_at is not None and row.ended_at < horizon}
    for each in gone:
        backend.submit(each, jobs.forget, each)
    return gone


def requested(backend: Backend, call: Call) -> list[Instance]:
    """List the caller's instances that the request names, or all."""
    return lookup.named(backend, call, visible(backend, call), lookup.instances, "InstanceIds")


def describe_instances(backend: Backend, call: Call) -> Mapping[str, Any]:
    getters = AnswerFilters("DescribeInstances", partial(_Description, backend), GETTERS)
    shown, token = filters.page(requested(backend, call), call.params, getters, ids="InstanceIds")
    by_reservation: dict[str, list[Instance]] = {}
    for row in shown:
        by_reservation.setdefault(row.reservation_id, []).append(row)
    return {
        "Reservations": [reservation(backend, members) for members in by_reservation.values()],
        "NextToken": token,
    }


def reservation(backend: Backend, instances: Sequence[Instance]) -> dict[str, Any]:
    """Describe the instances of one launch."""
    return {
        "ReservationId": instances[0].reservation_id,
        "OwnerId": instances[0].account,
        "Groups": [],
        "Instances": [to_api(backend, instance) for instance in instances],
    }


def launched(backend: Backend, instances: Sequence[Instance]) -> dict[str, Any]:
    """Describe the instances of a launch as RunInstances does: before they have devices and public addresses."""
    answer = reservation(backend, instances)
    return {**answer, "Instances": [_as_launched(described) for described in answer["Instances"]]}


def _as_launched(described: Mapping[str, Any]) -> dict[str, Any]:
    if described["State"]["Name"] != "pending":
        return dict(described)
    interfaces = [
        {
            **each,
            "Association": None,
            "Attachment": {**each["Attachment"], "Status": "attaching"},
            "PrivateIpAddresses": [{**address, "Association": None} for address in each["PrivateIpAddresses"]],
        }
        for each in described["NetworkInterfaces"]
    ]
    return {
        **described,
        "BlockDeviceMappings": [],
        "NetworkInterfaces": interfaces,
        "PublicDnsName": "",
        "PublicIpAddress": None,
        "StateReason": {"Code": "pending", "Message": "pending"},
    }


def _groups(backend: Backend, instance: Instance) -> list[dict[str, str]]:
    found = (backend.database.groups.get(group_id) for group_id in instance.group_ids)
    return [{"GroupId": group.id, "GroupName": group.name} for group in found if group]


def _is_ended(instance: Instance) -> bool:
    return instance.state == "terminated"


def _state_reason(instance: Instance) -> dict[str, str] | None:
    return {"Code": instance.reason_code, "Message": instance.reason} if instance.reason_code else None


def _transition_reason(instance: Instance) -> str:
    """Return why and when a caller stopped or terminated the instance; empty if none did."""
    if instance.reason_code != USER_INITIATED:
        return ""
    moment = instance.ending_since
    return f"User initiated ({moment:%Y-%m-%d %H:%M:%S} GMT)" if moment else "User initiated"


def _family(instance: Instance) -> str:
    return instance.instance_type.partition(".")[0]


def _network_interfaces(backend: Backend, instance: Instance) -> list[dict[str, Any]]:
    return [] if _is_ended(instance) else [interface(backend, instance, public_ip(instance))]


MEMBERS: Mapping[str, Callable[[Backend, Instance], Any]] = {
    "AmiLaunchIndex": lambda _, row: row.launch_index,
    "Architecture": lambda _, row: row.architecture,
    "BlockDeviceMappings": lambda _, row: [_attached(volume) for volume in row.volumes],
    "BootMode": lambda _, row: row.boot_mode,
    "CapacityReservationSpecification": lambda _, row: {"CapacityReservationPreference": "open"},
    "ClientToken": lambda _, row: row.client_token,
    "CpuOptions": lambda _, row: {"CoreCount": 1, "ThreadsPerCore": 2},
    "CurrentInstanceBootMode": lambda _, row: "legacy-bios",
    "EbsOptimized": lambda _, row: row.ebs_optimized,
    "EnaSupport": lambda _, row: row.ena_support,
    "EnclaveOptions": lambda _, row: {"Enabled": False},
    "HibernationOptions": lambda _, row: {"Configured": False},
    "Hypervisor": lambda _, row: "xen",
    "IamInstanceProfile": lambda _, row: credentials.profile_to_api(row),
    "ImageId": lambda _, row: row.image_id,
    "InstanceId": lambda _, row: row.id,
    "InstanceLifecycle": lambda _, row: "spot" if row.is_spot else None,
    "InstanceType": lambda _, row: row.instance_type,
    "KeyName": lambda _, row: row.key_name,
    "LaunchTime": lambda _, row: row.launch_time,
    "MaintenanceOptions": lambda _, row: {"AutoRecovery": "default", "RebootMigration": "default"},
    "MetadataOptions": lambda _, row: metadata_options.to_api(row),
    "Monitoring": lambda _, row: {"State": "enabled" if row.monitoring else "disabled"},
    "NetworkInterfaces": _network_interfaces,
    "NetworkPerformanceOptions": lambda _, row: {"BandwidthWeighting": "default"},
    "Operator": lambda _, row: OPERATOR,
    "Placement": lambda _, row: {
        "AvailabilityZone": row.zone,
        "AvailabilityZoneId": zone_id(row.zone),
        "GroupName": row.placement_group,
        "Tenancy": "default",
    },
    "PlatformDetails": lambda _, row: row.platform_details,
    "PrivateDnsName": lambda _, row: "" if _is_ended(row) else private_dns_name(row.private_ip, row.region),
    "PrivateDnsNameOptions": lambda _, row: {
        "HostnameType": "ip-name",
        "EnableResourceNameDnsARecord": False,
        "EnableResourceNameDnsAAAARecord": False,
    },
    "PrivateIpAddress": lambda _, row: None if _is_ended(row) else row.private_ip,
    "ProductCodes": lambda _, row: product_codes.to_api(row.product_codes),
    "PublicDnsName": lambda backend, row: public_dns_name(backend, row, public_ip(row)),
    "PublicIpAddress": lambda _, row: public_ip(row),
    "RootDeviceName": lambda _, row: row.root_device,
    "RootDeviceType": lambda _, row: row.root_type,
    "SecurityGroups": lambda backend, row: [] if _is_ended(row) else _groups(backend, row),
    "SourceDestCheck": lambda _, row: row.checks_source_dest,
    "SpotInstanceRequestId": lambda _, row: row.spot_request_id,
    "SriovNetSupport": lambda _, row: row.sriov if _family(row) in WITH_INTEL_INTERFACE else None,
    "State": lambda _, row: state_of(row.state),
    "StateReason": lambda _, row: _state_reason(row),
    "StateTransitionReason": lambda _, row: _transition_reason(row),
    "SubnetId": lambda _, row: None if _is_ended(row) else row.subnet_id,
    "Tags": lambda _, row: tagging.if_any(row.tags),
    "TpmSupport": lambda _, row: row.tpm_support,
    "UsageOperation": lambda _, row: row.usage_operation,
    "UsageOperationUpdateTime": lambda _, row: row.launch_time,
    "VirtualizationType": lambda _, row: "hvm",
    "VpcId": lambda _, row: None if _is_ended(row) else row.vpc_id,
}
"""The members of an instance's description, each by itself: a filter looks at one member of thousands of instances."""


class _Description(Mapping[str, Any]):
    """An instance's description, computed member by member."""

    def __init__(self, backend: Backend, instance: Instance) -> None:
        self._backend = backend
        self._instance = instance

    def __getitem__(self, name: str) -> Any:
        return MEMBERS[name](self._backend, self._instance)

    def __iter__(self) -> Iterator[str]:
        return iter(MEMBERS)

    def __len__(self) -> int:
        return len(MEMBERS)


def to_api(backend: Backend, instance: Instance) -> dict[str, Any]:
    """Describe an instance as DescribeInstances does."""
    return {name: member(backend, instance) for name, member in MEMBERS.items()}


def _attached(volume: AttachedVolume) -> dict[str, Any]:
    return {
        "DeviceName": volume.device,
        "Ebs": {
            "VolumeId": volume.volume_id,
            "Status": "detaching" if volume.state == "busy" else volume.state,
            "AttachTime": volume.attach_time,
            "DeleteOnTermination": volume.delete_on_termination,
            "EbsCardIndex": 0,
        },
    }


def interface(backend: Backend, instance: Instance, address: str | None) -> dict[str, Any]:
    """Describe the network interface of an instance as DescribeInstances does."""
    private_dns = private_dns_name(instance.private_ip, instance.region)
    association = {
        "IpOwnerId": "amazon",
        "PublicIp": address,
        "PublicDnsName": public_dns_name(backend, instance, address),
    }
    for elastic in backend.database.addresses if instance.elastic_ip else ():
        if elastic.instance_id == instance.id:
            owner = {"IpOwnerId": instance.account, "AllocationId": elastic.id}
            association |= {**owner, "AssociationId": elastic.association_id}
    return {
        "NetworkInterfaceId": instance.interface_id,
        "Status": "in-use",
        "InterfaceType": "interface",
        "OwnerId": instance.account,
        "SubnetId": instance.subnet_id,
        "VpcId": instance.vpc_id,
        "PrivateDnsName": private_dns,
        "PrivateIpAddress": instance.private_ip,
        "PrivateIpAddresses": [
            {
                "Primary": True,
                "PrivateDnsName": private_dns,
                "PrivateIpAddress": instance.private_ip,
                "Association": association if address else None,
            }
        ],
        "Association": association if address else None,
        "Attachment": {
            "AttachmentId": f"eni-attach-{instance.interface_id[4:]}",
            "AttachTime": instance.launch_time,
            "DeleteOnTermination": True,
            "DeviceIndex": 0,
            "NetworkCardIndex": 0,
            "Status": "attached",
        },
        "Groups": _groups(backend, instance),
        "SourceDestCheck": instance.checks_source_dest,
        "MacAddress": mac_address(instance.interface_id),
        "Description": "",
        "Ipv6Addresses": [],
        "Operator": OPERATOR,
    }


def describe_instance_attribute(backend: Backend, call: Call) -> Mapping[str, Any]:
    instance = lookup.instance(backend, call, call.text("InstanceId"))
    attribute = call.text("Attribute")
    answers: dict[str, tuple[str, Any]] = {
        "instanceType": ("InstanceType", {"Value": instance.instance_type}),
        "userData": ("UserData", {"Value": instance.user_data or None}),
        "disableApiTermination": ("DisableApiTermination", {"Value": instance.protects_termination}),
        "disableApiStop": ("DisableApiStop", {"Value": instance.protects_stop}),
        "instanceInitiatedShutdownBehavior": (
            "InstanceInitiatedShutdownBehavior",
            {"Value": instance.shutdown_behavior},
        ),
        "rootDeviceName": ("RootDeviceName", {"Value": instance.root_device}),
        "blockDeviceMapping": ("BlockDeviceMappings", [_attached(volume) for volume in instance.volumes]),
        "sourceDestCheck": ("SourceDestCheck", {"Value": instance.checks_source_dest}),
        "groupSet": ("Groups", _groups(backend, instance)),
        "ebsOptimized": ("EbsOptimized", {"Value": instance.ebs_optimized}),
        "sriovNetSupport": ("SriovNetSupport", {"Value": instance.sriov}),
        "enaSupport": ("EnaSupport", {"Value": instance.ena_support}),
        "productCodes": ("ProductCodes", product_codes.to_api(instance.product_codes)),
        "enclaveOptions": ("EnclaveOptions", {"Enabled": False}),
        "kernel": ("KernelId", {}),
        "ramdisk": ("RamdiskId", {}),
    }
    if attribute not in answers:
        raise invalid(f"Value ({attribute}) for parameter attribute is invalid. Unknown attribute.")
    name, value = answers[attribute]
    return {"InstanceId": instance.id, name: value}
