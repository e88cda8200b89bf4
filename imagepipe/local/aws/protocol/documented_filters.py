"""Filters of EC2's Describe actions, as EC2's own model documents them.

The model lists the names of an action's filters in the documentation of its `Filters` parameter. Most are the path of a
member of the answer, in another spelling: `metadata-options.http-tokens` is `MetadataOptions.HttpTokens`, and
`route.gateway-id` is `Routes.GatewayId`. The others are in `PATHS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, Generic

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.filters import Getter, T, Value
from imagepipe.local.aws.protocol.query import operation

ITEMS: Mapping[str, str] = {"DescribeInstances": "Reservations.Instances"}
"""The items that an action describes, if they are not the first list of its answer."""

_INTERFACE = {
    "addresses": "PrivateIpAddresses",
    "group-id": "Groups.GroupId",
    "group-name": "Groups.GroupName",
    "ipv6-address": "Ipv6Addresses.Ipv6Address",
}
_RULE = {
    "cidr": "IpRanges.CidrIp",
    "group-id": "UserIdGroupPairs.GroupId",
    "group-name": "UserIdGroupPairs.GroupName",
    "ipv6-cidr": "Ipv6Ranges.CidrIpv6",
    "protocol": "IpProtocol",
    "user-id": "UserIdGroupPairs.UserId",
    "prefix-list-id": "PrefixListIds.PrefixListId",
}
_BLOCK_DEVICE = {
    "delete-on-termination": "Ebs.DeleteOnTermination",
    "encrypted": "Ebs.Encrypted",
    "snapshot-id": "Ebs.SnapshotId",
    "volume-size": "Ebs.VolumeSize",
    "volume-type": "Ebs.VolumeType",
}


def _under(name: str, path: str, paths: Mapping[str, str]) -> dict[str, str]:
    return {f"{name}.{key}": f"{path}.{value}" for key, value in paths.items()}


PATHS: Mapping[str, Mapping[str, str]] = {
    "DescribeAvailabilityZones": {"message": "Messages.Message"},
    "DescribeDhcpOptions": {"key": "DhcpConfigurations.Key", "value": "DhcpConfigurations.Values.Value"},
    "DescribeImages": {
        **_under("block-device-mapping", "BlockDeviceMappings", _BLOCK_DEVICE),
        "is-public": "Public",
        "manifest-location": "ImageLocation",
        "owner-alias": "ImageOwnerAlias",
        "product-code": "ProductCodes.ProductCodeId",
        "product-code.type": "ProductCodes.ProductCodeType",
        "state-reason-code": "StateReason.Code",
        "state-reason-message": "StateReason.Message",
    },
    "DescribeImageUsageReportEntries": {"creation-time": "ReportCreationTime"},
    "DescribeInstanceStatus": {
        "instance-state-code": "InstanceState.Code",
        "instance-state-name": "InstanceState.Name",
        "instance-status.reachability": "InstanceStatus.Details.Status",
        "system-status.reachability": "SystemStatus.Details.Status",
    },
    "DescribeInstanceTypes": {
        "ebs-info.ebs-optimized-info.baseline-throughput-in-mbps": "EbsInfo.EbsOptimizedInfo.BaselineThroughputInMBps",
        "ebs-info.ebs-optimized-info.maximum-throughput-in-mbps": "EbsInfo.EbsOptimizedInfo.MaximumThroughputInMBps",
        "instance-storage-info.disk.size-in-gb": "InstanceStorageInfo.Disks.SizeInGB",
        "instance-storage-info.total-size-in-gb": "InstanceStorageInfo.TotalSizeInGB",
        "memory-info.size-in-mib": "MemoryInfo.SizeInMiB",
        "supported-usage-class": "SupportedUsageClasses",
        "vcpu-info.default-cores": "VCpuInfo.DefaultCores",
        "vcpu-info.default-threads-per-core": "VCpuInfo.DefaultThreadsPerCore",
        "vcpu-info.default-vcpus": "VCpuInfo.DefaultVCpus",
        "vcpu-info.valid-cores": "VCpuInfo.ValidCores",
        "vcpu-info.valid-threads-per-core": "VCpuInfo.ValidThreadsPerCore",
    },
    "DescribeInstances": {
        **_under("network-interface", "NetworkInterfaces", _INTERFACE),
        **_under(
            "block-device-mapping",
            "BlockDeviceMappings",
            {
                "attach-time": "Ebs.AttachTime",
                "delete-on-termination": "Ebs.DeleteOnTermination",
                "status": "Ebs.Status",
                "volume-id": "Ebs.VolumeId",
            },
        ),
        "affinity": "Placement.Affinity",
        "availability-zone": "Placement.AvailabilityZone",
        "availability-zone-id": "Placement.AvailabilityZoneId",
        "dns-name": "PublicDnsName",
        "host-id": "Placement.HostId",
        "instance-state-code": "State.Code",
        "instance-state-name": "State.Name",
        "instance.group-id": "SecurityGroups.GroupId",
        "instance.group-name": "SecurityGroups.GroupName",
        "ip-address": "PublicIpAddress",
        "launch-index": "AmiLaunchIndex",
        "monitoring-state": "Monitoring.State",
        "network-interface.public-dns-name": "NetworkInterfaces.Association.PublicDnsName",
        "placement-group-name": "Placement.GroupName",
        "placement-partition-number": "Placement.PartitionNumber",
        "private-dns-name-options.enable-resource-name-dns-aaaa-record": (
            "PrivateDnsNameOptions.EnableResourceNameDnsAAAARecord"
        ),
        "product-code": "ProductCodes.ProductCodeId",
        "product-code.type": "ProductCodes.ProductCodeType",
        "reason": "StateTransitionReason",
        "state-reason-code": "StateReason.Code",
        "state-reason-message": "StateReason.Message",
        "tenancy": "Placement.Tenancy",
    },
    "DescribeKeyPairs": {"fingerprint": "KeyFingerprint"},
    "DescribeNetworkAcls": {
        "association.association-id": "Associations.NetworkAclAssociationId",
        "default": "IsDefault",
        "entry.cidr": "Entries.CidrBlock",
        "entry.icmp.code": "Entries.IcmpTypeCode.Code",
        "entry.icmp.type": "Entries.IcmpTypeCode.Type",
        "entry.ipv6-cidr": "Entries.Ipv6CidrBlock",
    },
    "DescribeNetworkInterfaces": {
        **_INTERFACE,
        "addresses.association.owner-id": "PrivateIpAddresses.Association.IpOwnerId",
    },
    "DescribeRouteTables": {
        "association.route-table-association-id": "Associations.RouteTableAssociationId",
        "route.destination-prefix-list-id": "Routes.DestinationPrefixListId",
    },
    "DescribeSecurityGroups": {
        **_under("ip-permission", "IpPermissions", _RULE),
        **_under("egress.ip-permission", "IpPermissionsEgress", _RULE),
        "egress.ip-permission.from-port": "IpPermissionsEgress.FromPort",
        "egress.ip-permission.to-port": "IpPermissionsEgress.ToPort",
    },
    "DescribeSnapshots": {"status": "State"},
    "DescribeSpotInstanceRequests": {
        **_under("launch.block-device-mapping", "LaunchSpecification.BlockDeviceMappings", _BLOCK_DEVICE),
        "fault-code": "Fault.Code",
        "fault-message": "Fault.Message",
        "launch.block-device-mapping.device-name": "LaunchSpecification.BlockDeviceMappings.DeviceName",
        "launch.group-id": "LaunchSpecification.SecurityGroups.GroupId",
        "launch.group-name": "LaunchSpecification.SecurityGroups.GroupName",
        "launch.image-id": "LaunchSpecification.ImageId",
        "launch.instance-type": "LaunchSpecification.InstanceType",
        "launch.kernel-id": "LaunchSpecification.KernelId",
        "launch.key-name": "LaunchSpecification.KeyName",
        "launch.monitoring-enabled": "LaunchSpecification.Monitoring.Enabled",
        "launch.ramdisk-id": "LaunchSpecification.RamdiskId",
        "network-interface.addresses.primary": "LaunchSpecification.NetworkInterfaces.PrivateIpAddresses.Primary",
        "network-interface.delete-on-termination": "LaunchSpecification.NetworkInterfaces.DeleteOnTermination",
        "network-interface.description": "LaunchSpecification.NetworkInterfaces.Description",
        "network-interface.device-index": "LaunchSpecification.NetworkInterfaces.DeviceIndex",
        "network-interface.group-id": "LaunchSpecification.NetworkInterfaces.Groups",
        "network-interface.network-interface-id": "LaunchSpecification.NetworkInterfaces.NetworkInterfaceId",
        "network-interface.private-ip-address": "LaunchSpecification.NetworkInterfaces.PrivateIpAddress",
        "network-interface.subnet-id": "LaunchSpecification.NetworkInterfaces.SubnetId",
        "status-code": "Status.Code",
        "status-message": "Status.Message",
    },
    "DescribeSubnets": {
        "ipv6-cidr-block-association.state": "Ipv6CidrBlockAssociationSet.Ipv6CidrBlockState.State",
        "private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": (
            "PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsAAAARecord"
        ),
    },
    "DescribeVolumes": {"attachment.status": "Attachments.State", "status": "State"},
    "DescribeVolumeStatus": {
        "volume-status.details-name": "VolumeStatus.Details.Name",
        "volume-status.details-status": "VolumeStatus.Details.Status",
        "event.event-type": "Events.EventType",
        "attachment-status.io-performance": "AttachmentStatuses.IoPerformance",
        "attachment-status.instance-id": "AttachmentStatuses.InstanceId",
    },
    "DescribeVolumesModifications": {
        "originalMultiAttachEnabled": "OriginalMultiAttachEnabled",
        "targetMultiAttachEnabled": "TargetMultiAttachEnabled",
    },
    "DescribeVpcClassicLink": {"is-classic-link-enabled": "ClassicLinkEnabled"},
    "DescribeVpcEndpoints": {"vpc-endpoint-state": "State"},
    "DescribeVpcPeeringConnections": {"status-code": "Status.Code", "status-message": "Status.Message"},
    "DescribeVpcs": {
        "cidr": "CidrBlock",
        "cidr-block-association.state": "CidrBlockAssociationSet.CidrBlockState.State",
        "ipv6-cidr-block-association.ipv6-pool": "Ipv6CidrBlockAssociationSet.Ipv6Pool",
        "ipv6-cidr-block-association.state": "Ipv6CidrBlockAssociationSet.Ipv6CidrBlockState.State",
    },
}
"""Paths of filters that are named unlike the member of the answer that they compare."""


UNSUPPORTED: Mapping[str, frozenset[str]] = {
    "DescribeInstances": frozenset(
        {
            "metadata-options.http-protocol-ipv4",
            "network-interface.addresses.association.allocation-id",
            "network-interface.addresses.association.association-id",
            "network-interface.association.allocation-id",
            "network-interface.association.association-id",
            "network-interface.deny-all-igw-traffic",
            "network-interface.ipv6-native",
        }
    ),
    "DescribeLaunchTemplateVersions": frozenset(
        {"host-resource-group-arn", "http-protocol-ipv4", "license-configuration-arn", "network-card-index"}
    ),
}
"""Documented filters that are refused by name: nothing here has such a value."""


ALIASES: Mapping[str, Mapping[str, str]] = {
    "DescribeSubnets": {
        "availabilityZone": "availability-zone",
        "availabilityZoneId": "availability-zone-id",
        "cidr": "cidr-block",
        "cidrBlock": "cidr-block",
        "defaultForAz": "default-for-az",
    },
    "DescribeVpcs": {"cidrBlock": "cidr", "dhcpOptionsId": "dhcp-options-id", "isDefault": "is-default"},
}
"""Other names of filters. The API reference has those of DescribeSubnets ("You can also use"). Ansible's ec2_instance
and many Terraform configurations send `isDefault`."""


@dataclass(frozen=True, slots=True)
class Described:
    """A resource as an answer describes it."""

    id: str
    value: Mapping[str, Any]

    @property
    def tags(self) -> Mapping[str, str]:
        return {tag.get("Key", ""): tag.get("Value", "") for tag in self.value.get("Tags") or ()}


class AnswerFilters(Generic[T]):
    """The getters of an action's filters: those that the action gives, and the documented ones by its own answer."""

    def __init__(
        self, action: str, to_api: Callable[[T], Mapping[str, Any]], getters: Mapping[str, Getter] | None = None
    ) -> None:
        self._action = action
        self._to_api = to_api
        self._getters = getters or {}
        self._described: dict[int, Mapping[str, Any]] = {}
        """The answer for a row, by the row's identity: several filters share it."""

    def get(self, name: str) -> Getter | None:
        """Find the getter of a filter; None if the action has none of this name.

        Raises AwsError for a filter that EC2 documents and the local cloud does not support.
        """
        name = ALIASES.get(self._action, {}).get(name, name)
        own = self._getters.get(name)
        if own is not None or name not in documented(self._action):
            return own
        steps = path(self._action, name)
        if name in UNSUPPORTED.get(self._action, ()) or steps is None:
            raise AwsError(
                "InvalidParameterValue",
                f"The local cloud does not support the filter '{name}' of {self._action}: remove it, or filter the "
                "answer yourself",
            )
        return lambda row: list(_values(self._describe(row), steps))

    def _describe(self, row: T) -> Mapping[str, Any]:
        found = self._described.get(id(row))
        if found is None:
            found = self._described[id(row)] = self._to_api(row)
        return found


@cache
def documented(action: str) -> frozenset[str]:
    """List the names of an action's filters, without those of tags."""
    shape = operation(action).input_shape
    members = shape.members if shape else {}
    filters = members.get("Filters") or members.get("Filter")
    text = (filters.documentation if filters else "") or ""
    names: set[str] = set()
    depth = 0  # a list within the list has the values of a filter
    for mark, name in re.findall(r"<(ul|/ul)>|<li>\s*<p>\s*<code>([^<]+)</code>", text):
        depth += {"ul": 1, "/ul": -1}.get(mark, 0)
        if name and depth == 1:
            names.add(name.strip())
    return frozenset(name for name in names if not name.startswith("tag:") and name not in ("tag", "tag-key"))


@cache
def path(action: str, name: str) -> tuple[str, ...] | None:
    """Find the members that lead from a described item to the values of a filter; None if the answer lacks them."""
    item = _item(action)
    given = PATHS.get(action, {})
    steps: list[str] = []
    rest = name
    for length in range(name.count(".") + 1, 0, -1):  # the longest beginning of the name that the table has
        head = ".".join(name.split(".")[:length])
        if head in given:
            steps, rest = given[head].split("."), name[len(head) + 1 :]
            break
    shape = item
    for step in steps:
        shape = _member(shape, step)
        if shape is None:
            return None
    for word in rest.split(".") if rest else ():
        step_found = _find_member(shape, word)
        if step_found is None:
            return None
        steps.append(step_found)
        shape = _member(shape, step_found)
    return tuple(steps)


def item_path(action: str) -> tuple[str, ...]:
    """Return the members that lead from an answer to the described items."""
    if action in ITEMS:
        return tuple(ITEMS[action].split("."))
    output = operation(action).output_shape
    return (next(name for name, member in output.members.items() if member.type_name == "list"),)


def _item(action: str) -> Any:
    shape: Any = operation(action).output_shape
    for step in item_path(action):
        shape = _member(shape, step)
    return shape


def _member(shape: Any, name: str) -> Any:
    """Return the shape of a member, or None; lists stand for their items."""
    while shape is not None and shape.type_name == "list":
        shape = shape.member
    return shape.members.get(name) if shape is not None and shape.type_name == "structure" else None


def _find_member(shape: Any, word: str) -> str | None:
    """Find the member that a word of a filter's name means: `route` is `Routes`, `entry` is `Entries`."""
    while shape is not None and shape.type_name == "list":
        shape = shape.member
    if shape is None or shape.type_name != "structure":
        return None
    by_name = {str(name).lower(): str(name) for name in shape.members}
    plain = word.replace("-", "").lower()
    for candidate in (plain, f"{plain}s", f"{plain}es", f"{plain.removesuffix('y')}ies", f"{plain}set"):
        if candidate in by_name:
            return by_name[candidate]
    return None


def _values(item: Any, steps: tuple[str, ...]) -> Iterator[Value]:
    """Yield the values at the end of a path; lists on the way are walked."""
    if isinstance(item, list | tuple):
        for each in item:
            yield from _values(each, steps)
    elif not steps:
        yield item
    elif isinstance(item, Mapping):
        yield from _values(item.get(steps[0]), steps[1:])
