"""Parameters of EC2's actions that the local cloud refuses, and those that have no effect here.

All other parameters of an action are read by its function; a test compares the tables with EC2's model. A parameter
that asks for nothing, such as `EnclaveOptions={Enabled: false}`, is never refused: many clients send every default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagepipe.local.aws.protocol import query
from imagepipe.local.aws.protocol.errors import unsupported
from imagepipe.local.aws.protocol.query import Call

REFUSED: Mapping[str, tuple[str, ...]] = {
    "AllocateAddress": ("Address", "CustomerOwnedIpv4Pool", "IpamPoolId", "PublicIpv4Pool"),
    "AttachVolume": ("EbsCardIndex",),
    "CopyImage": (
        "DestinationAvailabilityZone",
        "DestinationAvailabilityZoneId",
        "DestinationOutpostArn",
    ),
    "CopySnapshot": ("DestinationAvailabilityZone", "DestinationOutpostArn"),
    "CreateFleet": ("ReservedCapacityOptions", "ValidFrom", "ValidUntil"),
    "CreateImage": ("BootModeOverride",),
    "CreateLaunchTemplate": ("Operator",),
    "CreateNatGateway": (
        "AvailabilityZoneAddresses",
        "SecondaryAllocationIds",
        "SecondaryPrivateIpAddressCount",
        "SecondaryPrivateIpAddresses",
        "VpcId",
    ),
    "CreatePlacementGroup": ("LinkedGroupId", "Operator", "ParentGroupId"),
    "CreateSnapshot": ("OutpostArn",),
    "CreateSnapshots": ("OutpostArn",),
    "CreateVolume": ("AvailabilityZoneId", "MultiAttachEnabled", "Operator", "OutpostArn"),
    "ModifyInstanceAttribute": ("Kernel", "Ramdisk"),
    "ModifyVolume": ("MultiAttachEnabled",),
    "RegisterImage": ("KernelId", "RamdiskId"),
    "RequestSpotInstances": ("AvailabilityZoneGroup", "BlockDurationMinutes", "LaunchGroup", "ValidFrom", "ValidUntil"),
    "RunInstances": (
        "CpuOptions.AmdSevSnp",
        "CpuOptions.NestedVirtualization",
        "ElasticGpuSpecification",
        "ElasticInferenceAccelerators",
        "EnablePrimaryIpv6",
        "EnclaveOptions",
        "HibernationOptions",
        "Ipv6AddressCount",
        "Ipv6Addresses",
        "KernelId",
        "LicenseSpecifications",
        "NetworkPerformanceOptions",
        "Operator",
        "Placement.Affinity",
        "Placement.HostId",
        "Placement.HostResourceGroupArn",
        "Placement.Tenancy",
        "RamdiskId",
        "SecondaryInterfaces",
    ),
    "StopInstances": ("Hibernate",),
}
"""Parameters that ask for something that the local cloud lacks; a member of a structure as STRUCTURE.MEMBER."""

NO_MANAGED = "no other service manages resources here"
MANAGED_KINDS = (
    "Instances", "InstanceStatus", "LaunchTemplates", "NetworkInterfaces", "VolumeStatus", "Volumes",
    "VolumesModifications",
)  # fmt: skip
OWN_GROUPS = {"SourceSecurityGroupOwnerId": "groups are found in the caller's own account"}
NO_LOCATION = "there is one place for snapshots"
NO_PACE = "bytes are copied as fast as possible"
NO_EFFECT: Mapping[str, Mapping[str, str]] = {
    "AllocateAddress": {"NetworkBorderGroup": "a region has one group, with the region's name"},
    **{f"Describe{kind}": {"IncludeManagedResources": NO_MANAGED} for kind in MANAGED_KINDS},
    **{f"{verb}SecurityGroup{side}": OWN_GROUPS for verb in ("Authorize", "Revoke") for side in ("Egress", "Ingress")},
    "CopyImage": {"SnapshotCopyCompletionDurationMinutes": NO_PACE},
    "CopySnapshot": {
        "CompletionDurationMinutes": NO_PACE,
        "DestinationRegion": "clients use it to sign PresignedUrl",
        "PresignedUrl": "the gateway can read every region",
    },
    "CreateFleet": {
        "Context": "reserved by EC2",
        "ExcessCapacityTerminationPolicy": "instant fleets have no excess capacity",
        "OnDemandOptions": "the first pool that has room is taken",
        "ReplaceUnhealthyInstances": "instant fleets replace nothing",
        "SpotOptions": "the first pool that has room is taken",
        "TerminateInstancesWithExpiration": "instant fleets do not expire",
    },
    "CreateImage": {"SnapshotLocation": NO_LOCATION},
    "CreateSnapshot": {"Location": NO_LOCATION},
    "CreateSnapshots": {"Location": NO_LOCATION},
    "CreateVolume": {"VolumeInitializationRate": NO_PACE},
    "DescribeInstanceTypes": {"IncludeUnsupportedInRegion": "only the region's own types are known to be offered"},
    "DescribeLaunchTemplateVersions": {"IncludeManagedResources": NO_MANAGED},
    "DescribeReservedInstances": {
        "OfferingClass": "there are no reserved instances",
        "OfferingType": "there are no reserved instances",
    },
    "DetachVolume": {"Force": "a volume that the machine uses stays busy until it is unmounted"},
    "GetConsoleOutput": {"Latest": "the output is always the latest"},
    "ImportSnapshot": {"ClientData": "EC2 only keeps it"},
    "MonitorInstances": {"MetricCategoryIds": "there are no metrics"},
    "RunInstances": {
        "AdditionalInfo": "reserved by EC2",
        "CapacityReservationSpecification": "there are no reservations",
        "CpuOptions": "machines share the processors of this computer",
        "MaintenanceOptions": "machines are not recovered",
        "PrivateDnsNameOptions": "names are those of the type ip-name",
    },
    "StartInstances": {"AdditionalInfo": "reserved by EC2"},
    "StopInstances": {"SkipOsShutdown": "the operating system is shut down unless Force is given"},
    "TerminateInstances": {"SkipOsShutdown": "the operating system is shut down"},
    "UnmonitorInstances": {"MetricCategoryIds": "there are no metrics"},
}
"""Parameters that are accepted without effect, with the reason."""


def check_supported(call: Call) -> None:
    """Raise AwsError for a parameter that asks for something that the local cloud lacks."""
    for name in REFUSED.get(call.action, ()):
        value: Any = call.params
        for step in name.split("."):
            value = value.get(step) if isinstance(value, Mapping) else None
        if not query.requests_nothing(value):
            raise unsupported(f"The local cloud does not support the parameter {name} of {call.action}: {value!r}")
