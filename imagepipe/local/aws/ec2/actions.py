"""The EC2 actions that the gateway implements, with their functions, and the names of those that moto answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import absent, account_attributes, key_pairs, recycle_bin, tags
from imagepipe.local.aws.ec2.images import (
    ancestry,
    attributes,
    availability,
    create,
    deregister,
    protection,
    references,
    usage_reports,
)
from imagepipe.local.aws.ec2.images import describe as images
from imagepipe.local.aws.ec2.instances import (
    change,
    fleet,
    interfaces,
    launch_templates,
    metadata_options,
    placement_groups,
    profiles,
    run,
    spot,
    status,
    types,
)
from imagepipe.local.aws.ec2.instances import describe as instances
from imagepipe.local.aws.ec2.network import addresses, nat_gateways, security_group_rules, security_groups
from imagepipe.local.aws.ec2.volumes import imports, modifications, snapshots, volumes
from imagepipe.local.aws.protocol.query import Call

Action = Callable[[Backend, Call], Mapping[str, Any]]


OWN: Mapping[str, Action] = {
    "RunInstances": run.run_instances,
    "DescribeInstances": instances.describe_instances,
    "DescribeInstanceStatus": status.describe_instance_status,
    "DescribeInstanceAttribute": instances.describe_instance_attribute,
    "GetConsoleOutput": status.get_console_output,
    "ModifyInstanceAttribute": change.modify_instance_attribute,
    "ModifyInstanceMetadataOptions": metadata_options.modify_instance_metadata_options,
    "DescribeNetworkInterfaces": interfaces.describe_network_interfaces,
    "DescribeInstanceTypes": types.describe_instance_types,
    "DescribeInstanceTypeOfferings": types.describe_instance_type_offerings,
    "DescribeInstanceCreditSpecifications": types.describe_instance_credit_specifications,
    "ModifyInstanceCreditSpecification": types.modify_instance_credit_specification,
    "DescribeSpotInstanceRequests": spot.describe_spot_instance_requests,
    "CancelSpotInstanceRequests": spot.cancel_spot_instance_requests,
    "StartInstances": change.start_instances,
    "StopInstances": change.stop_instances,
    "RebootInstances": change.reboot_instances,
    "TerminateInstances": change.terminate_instances,
    "RequestSpotInstances": fleet.request_spot_instances,
    "CreateFleet": fleet.create_fleet,
    "CreateLaunchTemplate": launch_templates.create_launch_template,
    "CreateLaunchTemplateVersion": launch_templates.create_launch_template_version,
    "ModifyLaunchTemplate": launch_templates.modify_launch_template,
    "DeleteLaunchTemplate": launch_templates.delete_launch_template,
    "DeleteLaunchTemplateVersions": launch_templates.delete_launch_template_versions,
    "DescribeLaunchTemplates": launch_templates.describe_launch_templates,
    "DescribeLaunchTemplateVersions": launch_templates.describe_launch_template_versions,
    "CreatePlacementGroup": placement_groups.create_placement_group,
    "DeletePlacementGroup": placement_groups.delete_placement_group,
    "DescribePlacementGroups": placement_groups.describe_placement_groups,
    "AssociateIamInstanceProfile": profiles.associate_iam_instance_profile,
    "ReplaceIamInstanceProfileAssociation": profiles.replace_iam_instance_profile_association,
    "DisassociateIamInstanceProfile": profiles.disassociate_iam_instance_profile,
    "DescribeIamInstanceProfileAssociations": profiles.describe_iam_instance_profile_associations,
    "MonitorInstances": change.monitor_instances,
    "UnmonitorInstances": change.unmonitor_instances,
    "ResetInstanceAttribute": change.reset_instance_attribute,
    "GetPasswordData": status.get_password_data,
    "DescribeAccountAttributes": account_attributes.describe_account_attributes,
    "DescribeReservedInstances": account_attributes.describe_reserved_instances,
    "DescribeVolumeStatus": volumes.describe_volume_status,
    "DescribeVolumeAttribute": volumes.describe_volume_attribute,
    "CreateVolume": volumes.create_volume,
    "DescribeVolumes": volumes.describe_volumes,
    "DeleteVolume": volumes.delete_volume,
    "AttachVolume": volumes.attach_volume,
    "DetachVolume": volumes.detach_volume,
    "ModifyVolume": modifications.modify_volume,
    "DescribeVolumesModifications": modifications.describe_volumes_modifications,
    "CreateSnapshot": snapshots.create_snapshot,
    "CreateSnapshots": snapshots.create_snapshots,
    "CopySnapshot": snapshots.copy_snapshot,
    "DescribeSnapshots": snapshots.describe_snapshots,
    "DeleteSnapshot": snapshots.delete_snapshot,
    "DescribeSnapshotAttribute": snapshots.describe_snapshot_attribute,
    "ModifySnapshotAttribute": snapshots.modify_snapshot_attribute,
    "ResetSnapshotAttribute": snapshots.reset_snapshot_attribute,
    "ImportSnapshot": imports.import_snapshot,
    "DescribeImportSnapshotTasks": imports.describe_import_snapshot_tasks,
    "CancelImportTask": imports.cancel_import_task,
    "RegisterImage": create.register_image,
    "CreateImage": create.create_image,
    "CopyImage": create.copy_image,
    "DescribeImages": images.describe_images,
    "DeregisterImage": deregister.deregister_image,
    "DescribeImageAttribute": attributes.describe_image_attribute,
    "ModifyImageAttribute": attributes.modify_image_attribute,
    "ResetImageAttribute": attributes.reset_image_attribute,
    "EnableImageDeprecation": attributes.enable_image_deprecation,
    "DisableImageDeprecation": attributes.disable_image_deprecation,
    "EnableImageDeregistrationProtection": protection.enable_image_deregistration_protection,
    "DisableImageDeregistrationProtection": protection.disable_image_deregistration_protection,
    "EnableImage": availability.enable_image,
    "DisableImage": availability.disable_image,
    "GetImageAncestry": ancestry.get_image_ancestry,
    "DescribeImageReferences": references.describe_image_references,
    "CreateImageUsageReport": usage_reports.create_image_usage_report,
    "DeleteImageUsageReport": usage_reports.delete_image_usage_report,
    "DescribeImageUsageReports": usage_reports.describe_image_usage_reports,
    "DescribeImageUsageReportEntries": usage_reports.describe_image_usage_report_entries,
    "ListImagesInRecycleBin": recycle_bin.list_images_in_recycle_bin,
    "RestoreImageFromRecycleBin": recycle_bin.restore_image_from_recycle_bin,
    "ListSnapshotsInRecycleBin": recycle_bin.list_snapshots_in_recycle_bin,
    "RestoreSnapshotFromRecycleBin": recycle_bin.restore_snapshot_from_recycle_bin,
    "GetImageBlockPublicAccessState": account_attributes.get_image_block_public_access,
    "EnableImageBlockPublicAccess": account_attributes.enable_image_block_public_access,
    "DisableImageBlockPublicAccess": account_attributes.disable_image_block_public_access,
    "GetSnapshotBlockPublicAccessState": account_attributes.get_snapshot_block_public_access,
    "EnableSnapshotBlockPublicAccess": account_attributes.enable_snapshot_block_public_access,
    "DisableSnapshotBlockPublicAccess": account_attributes.disable_snapshot_block_public_access,
    "GetEbsEncryptionByDefault": account_attributes.get_ebs_encryption_by_default,
    "EnableEbsEncryptionByDefault": account_attributes.enable_ebs_encryption_by_default,
    "DisableEbsEncryptionByDefault": account_attributes.disable_ebs_encryption_by_default,
    "GetEbsDefaultKmsKeyId": account_attributes.get_ebs_default_kms_key,
    "ModifyEbsDefaultKmsKeyId": account_attributes.modify_ebs_default_kms_key,
    "ResetEbsDefaultKmsKeyId": account_attributes.reset_ebs_default_kms_key,
    "CreateKeyPair": key_pairs.create_key_pair,
    "ImportKeyPair": key_pairs.import_key_pair,
    "DescribeKeyPairs": key_pairs.describe_key_pairs,
    "DeleteKeyPair": key_pairs.delete_key_pair,
    "AllocateAddress": addresses.allocate_address,
    "AssociateAddress": addresses.associate_address,
    "DisassociateAddress": addresses.disassociate_address,
    "ReleaseAddress": addresses.release_address,
    "DescribeAddresses": addresses.describe_addresses,
    "CreateNatGateway": nat_gateways.create_nat_gateway,
    "DeleteNatGateway": nat_gateways.delete_nat_gateway,
    "DescribeNatGateways": nat_gateways.describe_nat_gateways,
    "CreateSecurityGroup": security_groups.create_security_group,
    "DescribeSecurityGroups": security_groups.describe_security_groups,
    "DeleteSecurityGroup": security_groups.delete_security_group,
    "DescribeSecurityGroupRules": security_group_rules.describe_security_group_rules,
    "AuthorizeSecurityGroupIngress": security_group_rules.authorize_ingress,
    "AuthorizeSecurityGroupEgress": security_group_rules.authorize_egress,
    "RevokeSecurityGroupIngress": security_group_rules.revoke_ingress,
    "RevokeSecurityGroupEgress": security_group_rules.revoke_egress,
    "ModifySecurityGroupRules": security_group_rules.modify_rules,
    "UpdateSecurityGroupRuleDescriptionsIngress": security_group_rules.update_ingress_descriptions,
    "UpdateSecurityGroupRuleDescriptionsEgress": security_group_rules.update_egress_descriptions,
    "CreateTags": tags.create_tags,
    "DeleteTags": tags.delete_tags,
    "DescribeTags": tags.describe_tags,
    **dict.fromkeys(sorted(absent.ACTIONS), absent.describe_none),
}

_MOTO_NAMES = """
    DescribeAvailabilityZones DescribeRegions
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
    DescribeVpcEndpoints DescribePrefixLists DescribeManagedPrefixLists
    DescribeVpcPeeringConnections
    """
MOTO = frozenset(_MOTO_NAMES.split())
"""Networks and catalogues. moto's other actions would not know the gateway's instances and images."""
