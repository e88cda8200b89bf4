"""Which of EC2's actions are whose: the gateway's own, by function, and those that moto answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imagepipe.local.gateway import (
    checks,
    defaults,
    groups,
    image_attributes,
    image_making,
    images,
    instances,
    keys,
    launching,
    lifecycle,
    rules,
    snapshots,
    spot,
    tags,
    volumes,
)
from imagepipe.local.gateway.wire import Call
from imagepipe.local.gateway.world import World

Action = Callable[[World, Call], Mapping[str, Any]]


OWN: Mapping[str, Action] = {
    "RunInstances": launching.run_instances,
    "DescribeInstances": instances.describe_instances,
    "DescribeInstanceStatus": checks.describe_instance_status,
    "DescribeInstanceAttribute": instances.describe_instance_attribute,
    "GetConsoleOutput": checks.get_console_output,
    "ModifyInstanceAttribute": lifecycle.modify_instance_attribute,
    "DescribeSpotInstanceRequests": spot.describe_spot_instance_requests,
    "CancelSpotInstanceRequests": spot.cancel_spot_instance_requests,
    "StartInstances": lifecycle.start_instances,
    "StopInstances": lifecycle.stop_instances,
    "RebootInstances": lifecycle.reboot_instances,
    "TerminateInstances": lifecycle.terminate_instances,
    "CreateVolume": volumes.create_volume,
    "DescribeVolumes": volumes.describe_volumes,
    "DeleteVolume": volumes.delete_volume,
    "AttachVolume": volumes.attach_volume,
    "DetachVolume": volumes.detach_volume,
    "CreateSnapshot": snapshots.create_snapshot,
    "CreateSnapshots": snapshots.create_snapshots,
    "CopySnapshot": snapshots.copy_snapshot,
    "DescribeSnapshots": snapshots.describe_snapshots,
    "DeleteSnapshot": snapshots.delete_snapshot,
    "DescribeSnapshotAttribute": snapshots.describe_snapshot_attribute,
    "ModifySnapshotAttribute": snapshots.modify_snapshot_attribute,
    "ResetSnapshotAttribute": snapshots.reset_snapshot_attribute,
    "RegisterImage": image_making.register_image,
    "CreateImage": image_making.create_image,
    "CopyImage": image_making.copy_image,
    "DescribeImages": images.describe_images,
    "DeregisterImage": images.deregister_image,
    "DescribeImageAttribute": image_attributes.describe_image_attribute,
    "ModifyImageAttribute": image_attributes.modify_image_attribute,
    "ResetImageAttribute": image_attributes.reset_image_attribute,
    "EnableImageDeprecation": image_attributes.enable_image_deprecation,
    "DisableImageDeprecation": image_attributes.disable_image_deprecation,
    "EnableImageDeregistrationProtection": image_attributes.enable_image_deregistration_protection,
    "DisableImageDeregistrationProtection": image_attributes.disable_image_deregistration_protection,
    "GetImageBlockPublicAccessState": defaults.get_image_block_public_access,
    "EnableImageBlockPublicAccess": defaults.enable_image_block_public_access,
    "DisableImageBlockPublicAccess": defaults.disable_image_block_public_access,
    "GetSnapshotBlockPublicAccessState": defaults.get_snapshot_block_public_access,
    "EnableSnapshotBlockPublicAccess": defaults.enable_snapshot_block_public_access,
    "DisableSnapshotBlockPublicAccess": defaults.disable_snapshot_block_public_access,
    "GetEbsEncryptionByDefault": defaults.get_ebs_encryption_by_default,
    "EnableEbsEncryptionByDefault": defaults.enable_ebs_encryption_by_default,
    "DisableEbsEncryptionByDefault": defaults.disable_ebs_encryption_by_default,
    "GetEbsDefaultKmsKeyId": defaults.get_ebs_default_kms_key,
    "ModifyEbsDefaultKmsKeyId": defaults.modify_ebs_default_kms_key,
    "ResetEbsDefaultKmsKeyId": defaults.reset_ebs_default_kms_key,
    "CreateKeyPair": keys.create_key_pair,
    "ImportKeyPair": keys.import_key_pair,
    "DescribeKeyPairs": keys.describe_key_pairs,
    "DeleteKeyPair": keys.delete_key_pair,
    "CreateSecurityGroup": groups.create_security_group,
    "DescribeSecurityGroups": groups.describe_security_groups,
    "DeleteSecurityGroup": groups.delete_security_group,
    "DescribeSecurityGroupRules": rules.describe_security_group_rules,
    "AuthorizeSecurityGroupIngress": rules.authorize_ingress,
    "AuthorizeSecurityGroupEgress": rules.authorize_egress,
    "RevokeSecurityGroupIngress": rules.revoke_ingress,
    "RevokeSecurityGroupEgress": rules.revoke_egress,
    "CreateTags": tags.create_tags,
    "DeleteTags": tags.delete_tags,
    "DescribeTags": tags.describe_tags,
}

_MOTO_NAMES = """
    DescribeAccountAttributes DescribeAvailabilityZones DescribeRegions
    DescribeInstanceTypes DescribeInstanceTypeOfferings DescribeInstanceCreditSpecifications
    CreateVpc DeleteVpc DescribeVpcs DescribeVpcAttribute ModifyVpcAttribute
    AssociateVpcCidrBlock DisassociateVpcCidrBlock DescribeVpcClassicLink DescribeVpcClassicLinkDnsSupport
    CreateSubnet DeleteSubnet DescribeSubnets ModifySubnetAttribute
    CreateInternetGateway DeleteInternetGateway DescribeInternetGateways AttachInternetGateway
    DetachInternetGateway
    CreateRouteTable DeleteRouteTable DescribeRouteTables AssociateRouteTable DisassociateRouteTable
    ReplaceRouteTableAssociation CreateRoute DeleteRoute ReplaceRoute
    CreateNetworkAcl DeleteNetworkAcl DescribeNetworkAcls CreateNetworkAclEntry DeleteNetworkAclEntry
    ReplaceNetworkAclAssociation
    CreateDhcpOptions DeleteDhcpOptions DescribeDhcpOptions AssociateDhcpOptions
    DescribeNetworkInterfaces DescribeVpcEndpoints DescribePrefixLists DescribeManagedPrefixLists
    """
MOTO = frozenset(_MOTO_NAMES.split())
"""Networks and catalogues. What else moto has of EC2 would know nothing of the gateway's instances and images."""
