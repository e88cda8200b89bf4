"""It refuses what EC2 refuses, with EC2's codes: one row a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest

from imagepipe.local.aws.ec2.actions import OWN
from imagepipe.local.aws.faults.faults import Fault
from imagepipe.local.aws.protocol import query
from tests.local.aws.harness import (
    Cloud,
    available,
    base_image,
    launch,
    only_snapshot,
    refused,
    register,
    retain,
    root_volume,
    running,
    share,
    snapshot_of,
    state,
    stopped,
    until,
)


@dataclass
class Scene:
    """Things that the cases need, made when they are first asked for."""

    cloud: Cloud

    @cached_property
    def ec2(self) -> Any:
        return self.cloud.client()

    @cached_property
    def west(self) -> Any:
        return self.cloud.client(region="us-west-2")

    @cached_property
    def base(self) -> str:
        return base_image(self.ec2)

    @cached_property
    def base_snapshot(self) -> str:
        [found] = self.ec2.describe_images(ImageIds=[self.base])["Images"]
        return str(found["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])

    @cached_property
    def running(self) -> str:
        return running(self.ec2)

    @cached_property
    def stopped(self) -> str:
        return stopped(self.ec2)

    @cached_property
    def terminated(self) -> str:
        made = running(self.ec2)
        self.ec2.terminate_instances(InstanceIds=[made])
        until(lambda: state(self.ec2, made) == "terminated")
        return made

    @cached_property
    def snapshot(self) -> str:
        return snapshot_of(self.ec2, self.stopped)

    @cached_property
    def encrypted_snapshot(self) -> str:
        mapping = {"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True}}
        return snapshot_of(self.ec2, stopped(self.ec2, BlockDeviceMappings=[mapping]))

    @cached_property
    def pending_snapshot(self) -> str:
        volume = root_volume(self.ec2, self.stopped)
        self.cloud.gateway.backend.job_queues.set_delay("snapshot", 60)
        return str(self.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])

    @cached_property
    def template(self) -> str:
        made = self.ec2.create_launch_template(
            LaunchTemplateName="web", LaunchTemplateData={"ImageId": self.base, "InstanceType": "t3.small"}
        )
        return str(made["LaunchTemplate"]["LaunchTemplateId"])

    @cached_property
    def placement_group(self) -> str:
        return str(self.ec2.create_placement_group(GroupName="near")["PlacementGroup"]["GroupName"])

    @cached_property
    def rule(self) -> str:
        """The rule that a new group has."""
        of_group = [{"Name": "group-id", "Values": [self.group]}]
        [found] = self.ec2.describe_security_group_rules(Filters=of_group)["SecurityGroupRules"]
        return str(found["SecurityGroupRuleId"])

    @cached_property
    def spot_request(self) -> str:
        made = running(self.ec2, InstanceMarketOptions={"MarketType": "spot"})
        found = self.ec2.describe_instances(InstanceIds=[made])["Reservations"][0]["Instances"][0]
        return str(found["SpotInstanceRequestId"])

    @cached_property
    def kms_key(self) -> str:
        return str(self.cloud.client("kms").create_key()["KeyMetadata"]["Arn"])

    @cached_property
    def image(self) -> str:
        return available(self.ec2, register(self.ec2, self.snapshot, "web-1"))

    @cached_property
    def pending_image(self) -> str:
        snapshot = self.snapshot
        self.cloud.gateway.backend.job_queues.set_delay("image", 60)
        return register(self.ec2, snapshot, "pending-1")

    @cached_property
    def usage_report(self) -> str:
        made = self.ec2.create_image_usage_report(ImageId=self.image, ResourceTypes=[{"ResourceType": "ec2:Instance"}])
        describe = self.ec2.describe_image_usage_reports
        until(lambda: describe(ReportIds=[made["ReportId"]])["ImageUsageReports"][0]["State"] == "available")
        return str(made["ReportId"])

    @cached_property
    def recycled(self) -> tuple[str, str]:
        """An image and its snapshot in Recycle Bin."""
        for kind in ("EC2_IMAGE", "EBS_SNAPSHOT"):
            retain(self.cloud, kind)
        snapshot = only_snapshot(self.ec2, self.image)
        self.ec2.deregister_image(ImageId=self.image, DeleteAssociatedSnapshots=True)
        return self.image, snapshot

    @cached_property
    def recycled_image(self) -> str:
        """An image in Recycle Bin, whose snapshot was restored."""
        image, snapshot = self.recycled
        self.ec2.restore_snapshot_from_recycle_bin(SnapshotId=snapshot)
        return image

    @cached_property
    def group(self) -> str:
        return str(self.ec2.create_security_group(GroupName="web", Description="web")["GroupId"])

    @cached_property
    def elsewhere_group(self) -> str:
        vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        return str(self.ec2.create_security_group(GroupName="far", Description="far", VpcId=vpc)["GroupId"])

    @cached_property
    def volume(self) -> str:
        made = self.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
        until(lambda: self.ec2.describe_volumes(VolumeIds=[made])["Volumes"][0]["State"] == "available")
        return str(made)

    @cached_property
    def larger_volume(self) -> str:
        made = self.ec2.create_volume(AvailabilityZone="us-east-1a", Size=2)["VolumeId"]
        until(lambda: self.ec2.describe_volumes(VolumeIds=[made])["Volumes"][0]["State"] == "available")
        return str(made)

    @cached_property
    def spare_volume(self) -> str:
        return volume_beside(self.ec2, self.stopped)

    @cached_property
    def address(self) -> str:
        return str(self.ec2.allocate_address(Domain="vpc")["AllocationId"])

    @cached_property
    def association(self) -> str:
        made = self.ec2.associate_address(AllocationId=self.address, InstanceId=self.stopped)
        return str(made["AssociationId"])

    @cached_property
    def nat_gateway(self) -> str:
        [subnet, *_] = self.ec2.describe_subnets()["Subnets"]
        made = self.ec2.create_nat_gateway(SubnetId=subnet["SubnetId"], ConnectivityType="private")["NatGateway"]
        describe = self.ec2.describe_nat_gateways
        until(lambda: describe(NatGatewayIds=[made["NatGatewayId"]])["NatGateways"][0]["State"] == "available")
        return str(made["NatGatewayId"])

    @cached_property
    def importing(self) -> dict[str, Any]:
        """Parameters of an import, whose role and object exist."""
        self.cloud.client("iam").create_role(RoleName="vmimport", AssumeRolePolicyDocument="{}")
        s3 = self.cloud.client("s3")
        s3.create_bucket(Bucket="disks")
        s3.put_object(Bucket="disks", Key="disk", Body=b"x" * 512)
        return {"Format": "RAW", "UserBucket": {"S3Bucket": "disks", "S3Key": "disk"}}

    @cached_property
    def import_task(self) -> str:
        """A task that stays active."""
        container = self.importing
        self.cloud.gateway.backend.job_queues.set_delay("import", 60)
        return str(self.ec2.import_snapshot(DiskContainer=container)["ImportTaskId"])

    @cached_property
    def subnet(self) -> str:
        return str(self.ec2.describe_subnets()["Subnets"][0]["SubnetId"])

    @cached_property
    def opened_group(self) -> str:
        self.opened(**tcp(22))
        return self.group

    def mapped(self, **ebs: Any) -> str:
        return launch(self.ec2, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": ebs}])

    def device(self, **mapping: Any) -> str:
        return launch(self.ec2, BlockDeviceMappings=[mapping])

    def opened(self, **permission: Any) -> Any:
        return self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[permission])


def tcp(port: int, cidr: str = "127.0.0.1/32") -> dict[str, Any]:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": cidr}]}


def blank_image(ec2: Any, snapshot: str) -> str:
    """An image that says nothing of ENA."""
    return available(ec2, register(ec2, snapshot, "no-ena", EnaSupport=False))


def references(scene: Scene, kind: str, option: str = "", value: str = "") -> Any:
    options = [{"OptionName": option, "OptionValues": [value]}] if option else []
    asked = {"ResourceType": kind, "ResourceTypeOptions": options}
    return scene.ec2.describe_image_references(ImageIds=[scene.base], ResourceTypes=[asked])


def report(scene: Scene, image_id: str, kind: str, **more: Any) -> Any:
    return scene.ec2.create_image_usage_report(ImageId=image_id, ResourceTypes=[{"ResourceType": kind}], **more)


UNKNOWN = "0123456789abcdef0"
Case = Callable[[Scene], object]

CASES: dict[str, tuple[str, Case]] = {
    # images
    "name taken": ("InvalidAMIName.Duplicate", lambda s: (s.image, register(s.ec2, s.snapshot, "web-1"))),
    "name taken by a copy": (
        "InvalidAMIName.Duplicate",
        lambda s: (s.image, s.ec2.copy_image(SourceRegion="us-east-1", SourceImageId=s.image, Name="web-1")),
    ),
    "name taken, of an instance": (
        "InvalidAMIName.Duplicate",
        lambda s: (s.image, s.ec2.create_image(InstanceId=s.stopped, Name="web-1")),
    ),
    "name with a colon": ("InvalidAMIName.Malformed", lambda s: register(s.ec2, s.snapshot, "web:1")),
    "name with an umlaut": ("InvalidAMIName.Malformed", lambda s: register(s.ec2, s.snapshot, "wéb-1")),
    "name too long": ("InvalidAMIName.Malformed", lambda s: register(s.ec2, s.snapshot, "a" * 129)),
    "import without a disk": ("InvalidParameter", lambda s: s.ec2.import_snapshot(Description="x")),
    "import of a format that EC2 lacks": (
        "InvalidParameter",
        lambda s: s.ec2.import_snapshot(DiskContainer={**s.importing, "Format": "qcow2"}),
    ),
    "import of nothing": ("MissingParameter", lambda s: s.ec2.import_snapshot(DiskContainer={"Format": "RAW"})),
    "import with a url and a bucket": (
        "InvalidParameterCombination",
        lambda s: s.ec2.import_snapshot(DiskContainer={**s.importing, "Url": "s3://disks/disk"}),
    ),
    "import with a key and no encryption": (
        "InvalidParameterDependency",
        lambda s: s.ec2.import_snapshot(DiskContainer=s.importing, KmsKeyId=s.kms_key),
    ),
    "unknown import": (
        "InvalidConversionTaskId",
        lambda s: s.ec2.describe_import_snapshot_tasks(ImportTaskIds=["import-snap-0123456789abcdef0"]),
    ),
    "unknown filter of imports": (
        "InvalidParameterValue",
        lambda s: s.ec2.describe_import_snapshot_tasks(Filters=[{"Name": "state", "Values": ["active"]}]),
    ),
    "NAT gateway without a subnet": ("MissingParameter", lambda s: s.ec2.create_nat_gateway(AllocationId=s.address)),
    "NAT gateway in an unknown subnet": (
        "InvalidSubnetID.NotFound",
        lambda s: s.ec2.create_nat_gateway(SubnetId=f"subnet-{UNKNOWN}", AllocationId=s.address),
    ),
    "public NAT gateway without an address": (
        "MissingParameter",
        lambda s: s.ec2.create_nat_gateway(SubnetId=s.subnet),
    ),
    "private NAT gateway with an address": (
        "InvalidParameterCombination",
        lambda s: s.ec2.create_nat_gateway(SubnetId=s.subnet, AllocationId=s.address, ConnectivityType="private"),
    ),
    "NAT gateway with an unknown address": (
        "InvalidAllocationID.NotFound",
        lambda s: s.ec2.create_nat_gateway(SubnetId=s.subnet, AllocationId=f"eipalloc-{UNKNOWN}"),
    ),
    "regional NAT gateway": (
        "UnsupportedOperation",
        lambda s: s.ec2.create_nat_gateway(SubnetId=s.subnet, AllocationId=s.address, AvailabilityMode="regional"),
    ),
    "unknown NAT gateway": (
        "NatGatewayNotFound",
        lambda s: s.ec2.delete_nat_gateway(NatGatewayId=f"nat-{UNKNOWN}"),
    ),
    "pending snapshot registered": ("IncorrectState", lambda s: register(s.ec2, s.pending_snapshot, "early")),
    "unknown snapshot registered": (
        "InvalidSnapshot.NotFound",
        lambda s: register(s.ec2, f"snap-{UNKNOWN}", "web-1"),
    ),
    "snapshot of another region registered": (
        "InvalidSnapshot.NotFound",
        lambda s: register(s.west, s.snapshot, "web-1"),
    ),
    "snapshot of another owner registered": ("AuthFailure", lambda s: register(s.ec2, s.base_snapshot, "web-1")),
    "Encrypted beside SnapshotId registered": (
        "InvalidBlockDeviceMapping",
        lambda s: register(
            s.ec2,
            s.snapshot,
            "web-1",
            BlockDeviceMappings=[
                {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": s.snapshot, "Encrypted": True}},
            ],
        ),
    ),
    "description beyond ASCII": (
        "InvalidParameterValue",
        lambda s: register(s.ec2, s.snapshot, "web-1", Description="f\u00fcr alle"),
    ),
    "description longer than 255 characters": (
        "InvalidParameterValue",
        lambda s: register(s.ec2, s.snapshot, "web-1", Description="x" * 256),
    ),
    "root device that is not mapped": (
        "InvalidBlockDeviceMapping",
        lambda s: register(s.ec2, s.snapshot, "web-1", RootDeviceName="/dev/sda1"),
    ),
    "volume smaller than its snapshot registered": (
        "InvalidBlockDeviceMapping",
        lambda s: register(
            s.ec2,
            snapshot_of(s.ec2, stopped_with(s.ec2, size=4)),
            "small",
            BlockDeviceMappings=[
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {"SnapshotId": latest_snapshot(s.ec2), "VolumeSize": 1},
                }
            ],
        ),
    ),
    "architecture that is none": (
        "InvalidParameterValue",
        lambda s: register(s.ec2, s.snapshot, "web-1", Architecture="sparc"),
    ),
    "bundle registered": (
        "UnsupportedOperation",
        lambda s: s.ec2.register_image(Name="bundle", ImageLocation="bucket/image.manifest.xml"),
    ),
    "image of an unknown instance": (
        "InvalidInstanceID.NotFound",
        lambda s: s.ec2.create_image(InstanceId=f"i-{UNKNOWN}", Name="web-1"),
    ),
    "image of a terminated instance": (
        "IncorrectInstanceState",
        lambda s: s.ec2.create_image(InstanceId=s.terminated, Name="web-1"),
    ),
    "copy of an unknown image": (
        "InvalidAMIID.NotFound",
        lambda s: s.ec2.copy_image(SourceRegion="us-west-2", SourceImageId=s.base, Name="web-1"),
    ),
    "copy of a pending image": (
        "InvalidAMIID.Unavailable",
        lambda s: s.west.copy_image(SourceRegion="us-east-1", SourceImageId=s.pending_image, Name="web-1"),
    ),
    "copy from no region": (
        "InvalidParameterValue",
        lambda s: s.ec2.copy_image(SourceRegion="us-middle-1", SourceImageId=s.base, Name="web-1"),
    ),
    "copy with a key and no encryption": (
        "InvalidParameterDependency",
        lambda s: s.ec2.copy_image(SourceRegion="us-east-1", SourceImageId=s.base, Name="x-1", KmsKeyId="alias/x"),
    ),
    "copy with another request's token": (
        "IdempotentParameterMismatch",
        lambda s: [
            s.ec2.copy_image(SourceRegion="us-east-1", SourceImageId=s.base, Name=name, ClientToken="once")
            for name in ("first", "second")
        ],
    ),
    "unknown image deregistered": (
        "InvalidAMIID.NotFound",
        lambda s: s.ec2.deregister_image(ImageId=f"ami-{UNKNOWN}"),
    ),
    "image of another owner deregistered": ("AuthFailure", lambda s: s.ec2.deregister_image(ImageId=s.base)),
    "protected image deregistered": (
        "OperationNotPermitted",
        lambda s: (
            s.ec2.enable_image_deregistration_protection(ImageId=s.image),
            s.ec2.deregister_image(ImageId=s.image),
        ),
    ),
    "image of another owner shared": (
        "AuthFailure",
        lambda s: s.ec2.modify_image_attribute(ImageId=s.base, LaunchPermission={"Add": [{"Group": "all"}]}),
    ),
    "image shared with no account": (
        "InvalidAMIAttributeItemValue",
        lambda s: s.ec2.modify_image_attribute(ImageId=s.image, LaunchPermission={"Add": [{"UserId": "123"}]}),
    ),
    "malformed image id": ("InvalidAMIID.Malformed", lambda s: s.ec2.describe_images(ImageIds=["ami-xyz"])),
    "unknown image id": ("InvalidAMIID.NotFound", lambda s: s.ec2.describe_images(ImageIds=[f"ami-{UNKNOWN}"])),
    "one unknown image id among good ones": (
        "InvalidAMIID.NotFound",
        lambda s: s.ec2.describe_images(ImageIds=[s.base, f"ami-{UNKNOWN}"]),
    ),
    "unknown image filter": (
        "InvalidParameterValue",
        lambda s: s.ec2.describe_images(Filters=[{"Name": "colour", "Values": ["red"]}]),
    ),
    "filter with 201 values": (
        "FilterLimitExceeded",
        lambda s: s.ec2.describe_images(
            Filters=[{"Name": "image-id", "Values": [f"ami-{i:017x}" for i in range(201)]}]
        ),
    ),
    "image deregistered during its cooldown": (
        "OperationNotPermitted",
        lambda s: (
            s.ec2.enable_image_deregistration_protection(ImageId=s.image, WithCooldown=True),
            s.ec2.disable_image_deregistration_protection(ImageId=s.image),
            s.ec2.deregister_image(ImageId=s.image),
        ),
    ),
    "image of another owner disabled": ("AuthFailure", lambda s: s.ec2.disable_image(ImageId=s.base)),
    "pending image disabled": ("InvalidAMIID.Unavailable", lambda s: s.ec2.disable_image(ImageId=s.pending_image)),
    "disabled image launched": (
        "InvalidAMIID.Unavailable",
        lambda s: (s.ec2.disable_image(ImageId=s.image), launch(s.ec2, ImageId=s.image)),
    ),
    "disabled image copied": (
        "InvalidAMIID.Unavailable",
        lambda s: (
            s.ec2.disable_image(ImageId=s.image),
            s.ec2.copy_image(SourceRegion="us-east-1", SourceImageId=s.image, Name="copy"),
        ),
    ),
    "disabled image shared": (
        "InvalidAMIID.Unavailable",
        lambda s: (s.ec2.disable_image(ImageId=s.image), share(s.ec2, s.image)),
    ),
    "name of a disabled image": (
        "InvalidAMIName.Duplicate",
        lambda s: (s.ec2.disable_image(ImageId=s.image), register(s.ec2, s.snapshot, "web-1")),
    ),
    "snapshot of a disabled image deleted": (
        "InvalidSnapshot.InUse",
        lambda s: (s.ec2.disable_image(ImageId=s.image), s.ec2.delete_snapshot(SnapshotId=s.snapshot)),
    ),
    "disabled images by state alone": (
        "InvalidParameter",
        lambda s: s.ec2.describe_images(Filters=[{"Name": "state", "Values": ["disabled"]}]),
    ),
    "references of no type": (
        "MissingParameter",
        lambda s: s.ec2.describe_image_references(ImageIds=[s.base]),
    ),
    "references of a malformed image": (
        "InvalidAMIID.Malformed",
        lambda s: s.ec2.describe_image_references(ImageIds=["ami-x"], IncludeAllResourceTypes=True),
    ),
    "references of eleven images": (
        "InvalidParameterValue",
        lambda s: s.ec2.describe_image_references(
            ImageIds=[f"ami-{number:017x}" for number in range(11)], IncludeAllResourceTypes=True
        ),
    ),
    "references of a group": ("InvalidParameterValue", lambda s: references(s, "autoscaling:AutoScalingGroup")),
    "references with a depth of instances": (
        "InvalidParameterCombination",
        lambda s: references(s, "ec2:Instance", "version-depth", "3"),
    ),
    "references with a depth of zero": (
        "InvalidParameterValue",
        lambda s: references(s, "ec2:LaunchTemplate", "version-depth", "0"),
    ),
    "references with a state that is none": (
        "InvalidParameterValue",
        lambda s: references(s, "ec2:Instance", "state-name", "asleep"),
    ),
    "usage report on another owner's image": ("AuthFailure", lambda s: report(s, s.base, "ec2:Instance")),
    "usage report on parameters": ("InvalidParameterValue", lambda s: report(s, s.image, "ssm:Parameter")),
    "usage report on no type": (
        "MissingParameter",
        lambda s: s.ec2.create_image_usage_report(ImageId=s.image, ResourceTypes=[]),
    ),
    "usage report on an account that is none": (
        "InvalidParameterValue",
        lambda s: report(s, s.image, "ec2:Instance", AccountIds=["12"]),
    ),
    "unknown usage report": (
        "InvalidImageUsageReportId.NotFound",
        lambda s: s.ec2.describe_image_usage_reports(ReportIds=[f"amiur-{UNKNOWN}"]),
    ),
    "unknown usage report deleted": (
        "InvalidImageUsageReportId.NotFound",
        lambda s: s.ec2.delete_image_usage_report(ReportId=f"amiur-{UNKNOWN}"),
    ),
    "ancestry of an unknown image": (
        "InvalidAMIID.NotFound",
        lambda s: s.ec2.get_image_ancestry(ImageId=f"ami-{UNKNOWN}"),
    ),
    "image restored that is not in the bin": (
        "InvalidAMIID.NotFound",
        lambda s: s.ec2.restore_image_from_recycle_bin(ImageId=s.image),
    ),
    "snapshot restored that is not in the bin": (
        "InvalidSnapshot.NotFound",
        lambda s: s.ec2.restore_snapshot_from_recycle_bin(SnapshotId=s.snapshot),
    ),
    "image restored before its snapshot": (
        "InvalidSnapshot.NotFound",
        lambda s: s.ec2.restore_image_from_recycle_bin(ImageId=s.recycled[0]),
    ),
    "image restored whose name is taken": (
        "InvalidAMIName.Duplicate",
        lambda s: (
            register(s.ec2, (image := s.recycled_image) and s.recycled[1], "web-1"),
            s.ec2.restore_image_from_recycle_bin(ImageId=image),
        ),
    ),
    "twenty-one images listed in the bin": (
        "InvalidParameterValue",
        lambda s: s.ec2.list_images_in_recycle_bin(ImageIds=[f"ami-{number:017x}" for number in range(21)]),
    ),
    # launches
    "launch of an unknown image": ("InvalidAMIID.NotFound", lambda s: launch(s.ec2, ImageId=f"ami-{UNKNOWN}")),
    "launch of a malformed image": ("InvalidAMIID.Malformed", lambda s: launch(s.ec2, ImageId="debian")),
    "launch of another region's image": ("InvalidAMIID.NotFound", lambda s: launch(s.west, ImageId=s.base)),
    "launch of a pending image": ("InvalidAMIID.Unavailable", lambda s: launch(s.ec2, ImageId=s.pending_image)),
    "launch of an image without ENA as t3": (
        "InvalidParameterCombination",
        lambda s: launch(s.ec2, ImageId=blank_image(s.ec2, s.snapshot), InstanceType="t3.small"),
    ),
    "launch as a type that is none": ("InvalidParameterValue", lambda s: launch(s.ec2, InstanceType="t9.small")),
    "launch as a type of another architecture": (
        "InvalidParameterValue",
        lambda s: launch(s.ec2, InstanceType="t4g.small"),
    ),
    "launch with an unknown key": ("InvalidKeyPair.NotFound", lambda s: launch(s.ec2, KeyName="nobody's")),
    "launch with an unknown group": (
        "InvalidGroup.NotFound",
        lambda s: launch(s.ec2, SecurityGroupIds=[f"sg-{UNKNOWN}"]),
    ),
    "launch with a group of another network": (
        "InvalidParameter",
        lambda s: launch(s.ec2, SecurityGroupIds=[s.elsewhere_group]),
    ),
    "launch in an unknown subnet": (
        "InvalidSubnetID.NotFound",
        lambda s: launch(s.ec2, SubnetId=f"subnet-{UNKNOWN}"),
    ),
    "launch in a zone that is none": (
        "InvalidParameterValue",
        lambda s: launch(s.ec2, Placement={"AvailabilityZone": "us-east-1z"}),
    ),
    "launch of none": ("InvalidParameterValue", lambda s: launch(s.ec2, MinCount=0, MaxCount=0)),
    "launch of fewer than at least": ("InvalidParameterValue", lambda s: launch(s.ec2, MinCount=2, MaxCount=1)),
    "launch with too much user data": ("InvalidParameterValue", lambda s: launch(s.ec2, UserData="x" * 16385)),
    "launch with an unknown profile": (
        "InvalidParameterValue",
        lambda s: launch(s.ec2, IamInstanceProfile={"Name": "nobody's"}),
    ),
    "launch with another launch's token": (
        "IdempotentParameterMismatch",
        lambda s: [launch(s.ec2, ClientToken="once", InstanceType=kind) for kind in ("t3.small", "t3.micro")],
    ),
    "launch with a subnet in two places": (
        "InvalidParameterCombination",
        lambda s: launch(s.ec2, SubnetId="subnet-1", NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": "subnet-1"}]),
    ),
    "launch with a taken address": (
        "InvalidIPAddress.InUse",
        lambda s: launch(
            s.ec2,
            SubnetId=subnet_of(s.ec2, s.running),
            PrivateIpAddress=address_of(s.ec2, s.running),
        ),
    ),
    "launch with a tag of AWS's": (
        "InvalidParameterValue",
        lambda s: launch(
            s.ec2,
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "aws:x", "Value": "y"}]}],
        ),
    ),
    "launch with tags for an image": (
        "InvalidParameterValue",
        lambda s: launch(s.ec2, TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "x", "Value": "y"}]}]),
    ),
    # volumes of a launch
    "device name that is none": (
        "InvalidBlockDeviceMapping",
        lambda s: s.device(DeviceName="/dev/disk0", Ebs={"VolumeSize": 1}),
    ),
    "leaving out a device that is not there": (
        "InvalidBlockDeviceMapping",
        lambda s: s.device(DeviceName="/dev/sdf", NoDevice=""),
    ),
    "leaving out the root": ("InvalidBlockDeviceMapping", lambda s: s.device(DeviceName="/dev/xvda", NoDevice="")),
    "volume without a size": ("MissingParameter", lambda s: s.device(DeviceName="/dev/sdf", Ebs={"VolumeType": "gp3"})),
    "volume smaller than its snapshot": (
        "InvalidBlockDeviceMapping",
        lambda s: launch(
            s.ec2,
            ImageId=available(s.ec2, register(s.ec2, snapshot_of(s.ec2, stopped_with(s.ec2, size=4)), "large")),
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}],
        ),
    ),
    "another snapshot for the root": (
        "InvalidBlockDeviceMapping",
        lambda s: s.mapped(SnapshotId=s.snapshot),
    ),
    "volume type that is none": ("InvalidParameterValue", lambda s: s.mapped(VolumeType="gp9")),
    "iops of a gp2": ("InvalidParameterCombination", lambda s: s.mapped(VolumeType="gp2", Iops=300)),
    "io1 without iops": ("InvalidParameterCombination", lambda s: s.mapped(VolumeType="io1", VolumeSize=8)),
    "io1 with too many iops for its size": (
        "InvalidParameterValue",
        lambda s: s.mapped(VolumeType="io1", VolumeSize=8, Iops=5000),
    ),
    "gp3 with too few iops": ("InvalidParameterValue", lambda s: s.mapped(VolumeType="gp3", Iops=100)),
    "throughput of a gp2": ("InvalidParameterCombination", lambda s: s.mapped(VolumeType="gp2", Throughput=125)),
    "too much throughput": ("InvalidParameterValue", lambda s: s.mapped(VolumeType="gp3", Throughput=9999)),
    "volume too large": ("InvalidParameterValue", lambda s: s.mapped(VolumeType="gp2", VolumeSize=20000)),
    "one device twice": (
        "InvalidBlockDeviceMapping",
        lambda s: launch(s.ec2, BlockDeviceMappings=[{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1}}] * 2),
    ),
    "instance store volume that is none": (
        "InvalidParameterValue",
        lambda s: s.device(DeviceName="/dev/sdf", VirtualName="ephemeral24"),
    ),
    "an encrypted snapshot's volume unencrypted": (
        "InvalidBlockDeviceMapping",
        lambda s: launch(
            s.ec2,
            ImageId=available(s.ec2, register(s.ec2, s.encrypted_snapshot, "secret")),
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": False}}],
        ),
    ),
    "key without encryption": ("InvalidParameterDependency", lambda s: s.mapped(KmsKeyId="alias/x")),
    # what an account has set
    "image made public while that is blocked": (
        "OperationNotPermitted",
        lambda s: s.ec2.modify_image_attribute(ImageId=s.image, LaunchPermission={"Add": [{"Group": "all"}]}),
    ),
    "block public access of a kind that is none": (
        "InvalidParameterValue",
        lambda s: s.ec2.enable_image_block_public_access(ImageBlockPublicAccessState="unblocked"),
    ),
    "snapshot block public access of a kind that is none": (
        "InvalidParameterValue",
        lambda s: s.ec2.enable_snapshot_block_public_access(State="unblocked"),
    ),
    "default key that is none": (
        "InvalidParameterValue",
        lambda s: s.ec2.modify_ebs_default_kms_key_id(KmsKeyId="alias/nobodys"),
    ),
    "snapshot of the default key shared": (
        "OperationNotPermitted",
        lambda s: s.ec2.modify_snapshot_attribute(
            SnapshotId=s.encrypted_snapshot, CreateVolumePermission={"Add": [{"UserId": "111122223333"}]}
        ),
    ),
    "KMS key in an image's mapping": (
        "InvalidBlockDeviceMapping",
        lambda s: s.ec2.create_image(
            InstanceId=s.stopped,
            Name="web-1",
            BlockDeviceMappings=[
                {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "Encrypted": True, "KmsKeyId": s.kms_key}}
            ],
        ),
    ),
    "image of the default key shared": (
        "InvalidParameter",
        lambda s: s.ec2.modify_image_attribute(
            ImageId=available(s.ec2, register(s.ec2, s.encrypted_snapshot, "secret")),
            LaunchPermission={"Add": [{"UserId": "111122223333"}]},
        ),
    ),
    "image shared with half an account": (
        "InvalidAMIAttributeItemValue",
        lambda s: s.ec2.modify_image_attribute(ImageId=s.image, LaunchPermission={"Add": [{"UserId": "1111"}]}),
    ),
    "image shared with an organization that is none": (
        "InvalidParameterValue",
        lambda s: s.ec2.modify_image_attribute(
            ImageId=s.image, LaunchPermission={"Add": [{"OrganizationArn": "o-a1b2c3d4e5"}]}
        ),
    ),
    "billing registered": (
        "AuthFailure",
        lambda s: register(s.ec2, s.snapshot, "web-1", BillingProducts=["bp-6ba54002"]),
    ),
    # instances
    "stopping a one-time spot instance": (
        "UnsupportedOperation",
        lambda s: s.ec2.stop_instances(InstanceIds=[running(s.ec2, InstanceMarketOptions={"MarketType": "spot"})]),
    ),
    "a market that is none": (
        "InvalidParameterValue",
        lambda s: launch(s.ec2, InstanceMarketOptions={"MarketType": "flea"}),
    ),
    "a spot price too low": (
        "SpotMaxPriceTooLow",
        lambda s: launch(s.ec2, InstanceMarketOptions={"MarketType": "spot", "SpotOptions": {"MaxPrice": "0.0001"}}),
    ),
    "unknown instance id": (
        "InvalidInstanceID.NotFound",
        lambda s: s.ec2.describe_instances(InstanceIds=[f"i-{UNKNOWN}"]),
    ),
    "malformed instance id": ("InvalidInstanceID.Malformed", lambda s: s.ec2.describe_instances(InstanceIds=["i-1"])),
    "instance of another region": (
        "InvalidInstanceID.NotFound",
        lambda s: s.west.describe_instances(InstanceIds=[s.running]),
    ),
    "stopping a terminated instance": (
        "IncorrectInstanceState",
        lambda s: s.ec2.stop_instances(InstanceIds=[s.terminated]),
    ),
    "starting a terminated instance": (
        "IncorrectInstanceState",
        lambda s: s.ec2.start_instances(InstanceIds=[s.terminated]),
    ),
    "rebooting a stopped instance": (
        "IncorrectInstanceState",
        lambda s: s.ec2.reboot_instances(InstanceIds=[s.stopped]),
    ),
    "terminating a protected instance": (
        "OperationNotPermitted",
        lambda s: s.ec2.terminate_instances(InstanceIds=[running(s.ec2, DisableApiTermination=True)]),
    ),
    "pages beside ids": (
        "InvalidParameterCombination",
        lambda s: s.ec2.describe_instances(InstanceIds=[s.running], MaxResults=5),
    ),
    "pages too small": ("InvalidParameterValue", lambda s: s.ec2.describe_instances(MaxResults=4)),
    "page that is none": ("InvalidParameterValue", lambda s: s.ec2.describe_instances(NextToken="????")),
    "unknown instance filter": (
        "InvalidParameterValue",
        lambda s: s.ec2.describe_instances(Filters=[{"Name": "colour", "Values": ["red"]}]),
    ),
    # snapshots and volumes
    "snapshot in use": ("InvalidSnapshot.InUse", lambda s: (s.image, s.ec2.delete_snapshot(SnapshotId=s.snapshot))),
    "unknown snapshot": (
        "InvalidSnapshot.NotFound",
        lambda s: s.ec2.delete_snapshot(SnapshotId=f"snap-{UNKNOWN}"),
    ),
    "snapshot of another owner": ("AuthFailure", lambda s: s.ec2.delete_snapshot(SnapshotId=s.base_snapshot)),
    "malformed snapshot id": (
        "InvalidSnapshotID.Malformed",
        lambda s: s.ec2.describe_snapshots(SnapshotIds=["snap-1"]),
    ),
    "snapshot of an unknown volume": (
        "InvalidVolume.NotFound",
        lambda s: s.ec2.create_snapshot(VolumeId=f"vol-{UNKNOWN}"),
    ),
    "volume in use": ("VolumeInUse", lambda s: s.ec2.delete_volume(VolumeId=root_volume(s.ec2, s.running))),
    "volume of a pending snapshot": (
        "IncorrectState",
        lambda s: s.ec2.create_volume(AvailabilityZone="us-east-1a", SnapshotId=s.pending_snapshot),
    ),
    "volume in no zone": (
        "InvalidZone.NotFound",
        lambda s: s.ec2.create_volume(AvailabilityZone="us-west-2a", Size=1),
    ),
    "volume of no size": ("MissingParameter", lambda s: s.ec2.create_volume(AvailabilityZone="us-east-1a")),
    "volume attached to a terminated instance": (
        "IncorrectState",
        lambda s: s.ec2.attach_volume(
            VolumeId=volume_beside(s.ec2, s.terminated), InstanceId=s.terminated, Device="/dev/sdf"
        ),
    ),
    "root volume detached from a running instance": (
        "OperationNotPermitted",
        lambda s: s.ec2.detach_volume(VolumeId=root_volume(s.ec2, s.running)),
    ),
    "volume detached at another device": (
        "InvalidAttachment.NotFound",
        lambda s: s.ec2.detach_volume(VolumeId=root_volume(s.ec2, s.running), Device="/dev/sdq"),
    ),
    "volume attached from another zone": (
        "InvalidVolume.ZoneMismatch",
        lambda s: s.ec2.attach_volume(
            VolumeId=s.volume,
            InstanceId=stopped(s.ec2, Placement={"AvailabilityZone": "us-east-1b"}),
            Device="/dev/sdf",
        ),
    ),
    "volume attached where another is": (
        "InvalidParameterValue",
        lambda s: s.ec2.attach_volume(
            VolumeId=volume_beside(s.ec2, s.stopped), InstanceId=s.stopped, Device="/dev/xvda"
        ),
    ),
    "volume made smaller": ("InvalidParameterValue", lambda s: s.ec2.modify_volume(VolumeId=s.larger_volume, Size=1)),
    "volume modified in nothing": (
        "InvalidParameterCombination",
        lambda s: s.ec2.modify_volume(VolumeId=s.volume),
    ),
    "volume modified beyond its type": (
        "InvalidParameterValue",
        lambda s: s.ec2.modify_volume(VolumeId=s.volume, VolumeType="standard", Size=1025),
    ),
    "iops of a volume without any": (
        "InvalidParameterCombination",
        lambda s: s.ec2.modify_volume(VolumeId=s.volume, Iops=3000),
    ),
    "too many iops for the size": (
        "InvalidParameterValue",
        lambda s: s.ec2.modify_volume(VolumeId=s.volume, VolumeType="gp3", Size=8, Iops=5000),
    ),
    "modification of a volume that was not modified": (
        "InvalidVolumeModification.NotFound",
        lambda s: s.ec2.describe_volumes_modifications(VolumeIds=[s.volume]),
    ),
    "volume detached that is not attached": ("IncorrectState", lambda s: s.ec2.detach_volume(VolumeId=s.volume)),
    # addresses
    "unknown allocation": (
        "InvalidAllocationID.NotFound",
        lambda s: s.ec2.release_address(AllocationId=f"eipalloc-{UNKNOWN}"),
    ),
    "unknown address": ("InvalidAddress.NotFound", lambda s: s.ec2.describe_addresses(PublicIps=["127.42.9.9"])),
    "unknown association": (
        "InvalidAssociationID.NotFound",
        lambda s: s.ec2.disassociate_address(AssociationId=f"eipassoc-{UNKNOWN}"),
    ),
    "address associated with nothing": ("MissingParameter", lambda s: s.ec2.associate_address(AllocationId=s.address)),
    "address of a terminated instance": (
        "IncorrectInstanceState",
        lambda s: s.ec2.associate_address(AllocationId=s.address, InstanceId=s.terminated),
    ),
    "address released in use": (
        "InvalidIPAddress.InUse",
        lambda s: (s.association, s.ec2.release_address(AllocationId=s.address)),
    ),
    "address taken from another instance": (
        "Resource.AlreadyAssociated",
        lambda s: (
            s.association,
            s.ec2.associate_address(AllocationId=s.address, InstanceId=s.running, AllowReassociation=False),
        ),
    ),
    # keys and groups
    "key pair twice": (
        "InvalidKeyPair.Duplicate",
        lambda s: [s.ec2.create_key_pair(KeyName="key", KeyType="ed25519") for _ in range(2)],
    ),
    "key that is none": (
        "InvalidKey.Format",
        lambda s: s.ec2.import_key_pair(KeyName="key", PublicKeyMaterial=b"ssh-rsa nonsense"),
    ),
    "unknown key pair": ("InvalidKeyPair.NotFound", lambda s: s.ec2.describe_key_pairs(KeyNames=["nobody's"])),
    "group twice": (
        "InvalidGroup.Duplicate",
        lambda s: (s.group, s.ec2.create_security_group(GroupName="web", Description="again")),
    ),
    "group in an unknown network": (
        "InvalidVpcID.NotFound",
        lambda s: s.ec2.create_security_group(GroupName="x", Description="x", VpcId=f"vpc-{UNKNOWN}"),
    ),
    "group in use": (
        "DependencyViolation",
        lambda s: (launch(s.ec2, SecurityGroupIds=[s.group]), s.ec2.delete_security_group(GroupId=s.group)),
    ),
    "group that another one names": (
        "DependencyViolation",
        lambda s: (
            s.ec2.authorize_security_group_ingress(
                GroupId=s.ec2.create_security_group(GroupName="inner", Description="x")["GroupId"],
                IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": s.group}]}],
            ),
            s.ec2.delete_security_group(GroupId=s.group),
        ),
    ),
    "unknown group": ("InvalidGroup.NotFound", lambda s: s.ec2.delete_security_group(GroupId=f"sg-{UNKNOWN}")),
    "malformed group": ("InvalidGroupId.Malformed", lambda s: s.ec2.delete_security_group(GroupId="web")),
    "default group deleted": ("CannotDelete", lambda s: s.ec2.delete_security_group(GroupName="default")),
    "rule twice": ("InvalidPermission.Duplicate", lambda s: [s.opened(**tcp(22)) for _ in range(2)]),
    "rule that is not there": (
        "InvalidPermission.NotFound",
        lambda s: s.ec2.revoke_security_group_ingress(GroupId=s.group, IpPermissions=[tcp(22)]),
    ),
    "rule for no addresses": ("InvalidParameterValue", lambda s: s.opened(**tcp(22, "127.0.0.1"))),
    "rule for half an address": ("InvalidParameterValue", lambda s: s.opened(**tcp(22, "127.0.0/8"))),
    "rule for a port that is none": ("InvalidParameterValue", lambda s: s.opened(**tcp(70000))),
    "rule for a protocol that is none": (
        "InvalidParameterValue",
        lambda s: s.opened(**{**tcp(22), "IpProtocol": "carrier-pigeon"}),
    ),
    "rule for nobody": ("MissingParameter", lambda s: s.opened(IpProtocol="tcp", FromPort=22, ToPort=22)),
    # networks and tags
    "network in use deleted": (
        "DependencyViolation",
        lambda s: (s.running, s.ec2.delete_vpc(VpcId=s.ec2.describe_vpcs()["Vpcs"][0]["VpcId"])),
    ),
    "subnet in use deleted": (
        "DependencyViolation",
        lambda s: s.ec2.delete_subnet(SubnetId=subnet_of(s.ec2, s.running)),
    ),
    "tags of an unknown thing": (
        "InvalidAMIID.NotFound",
        lambda s: s.ec2.create_tags(Resources=[f"ami-{UNKNOWN}"], Tags=[{"Key": "x", "Value": "y"}]),
    ),
    "too many tags": (
        "TagLimitExceeded",
        lambda s: s.ec2.create_tags(Resources=[s.group], Tags=[{"Key": f"k{i}", "Value": ""} for i in range(51)]),
    ),
    "tag with a long value": (
        "InvalidParameterValue",
        lambda s: s.ec2.create_tags(Resources=[s.group], Tags=[{"Key": "x", "Value": "y" * 257}]),
    ),
}


def stopped_with(ec2: Any, *, size: int) -> str:
    return stopped(ec2, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": size}}])


def latest_snapshot(ec2: Any) -> str:
    return str(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"][-1]["SnapshotId"])


def subnet_of(ec2: Any, instance_id: str) -> str:
    return str(ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]["SubnetId"])


def address_of(ec2: Any, instance_id: str) -> str:
    found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    return str(found["PrivateIpAddress"])


def volume_beside(ec2: Any, instance_id: str) -> str:
    """A volume in the instance's zone."""
    found = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    made = ec2.create_volume(AvailabilityZone=found["Placement"]["AvailabilityZone"], Size=1)["VolumeId"]
    until(lambda: ec2.describe_volumes(VolumeIds=[made])["Volumes"][0]["State"] == "available")
    return str(made)


@pytest.mark.parametrize("case", CASES)
def test_ec2_refuses(case: str, cloud: Cloud) -> None:
    code, act = CASES[case]
    with refused(code):
        act(Scene(cloud))


def test_a_missing_parameter_is_named(cloud: Cloud) -> None:
    """botocore checks this itself; other clients do not."""
    from tests.local.daemon.test_endpoint import ask, signed

    for body, missing in (
        (b"Action=RunInstances&Version=2016-11-15", b"parameter MaxCount"),
        (b"Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=1", b"parameter ImageId"),
        (b"Action=CopyImage&Version=2016-11-15", b"parameter Name"),
        (b"Action=DeleteSnapshot&Version=2016-11-15", b"parameter SnapshotId"),
    ):
        status, _, answer = ask(cloud, "POST", "/", body, **signed(cloud, "ec2", "POST", "/", body))
        assert (status, b"<Code>MissingParameter</Code>" in answer, missing in answer) == (400, True, True), answer


def test_a_dry_run_says_that_it_would_succeed_and_changes_nothing(cloud: Cloud, ec2: Any) -> None:
    with refused("DryRunOperation"):
        launch(ec2, DryRun=True)
    with refused("InvalidParameterValue"):
        launch(ec2, DryRun=True, InstanceType="t9.small")
    with refused("DryRunOperation"):
        ec2.create_security_group(GroupName="web", Description="web", DryRun=True)
    assert ec2.describe_instances()["Reservations"] == []
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == 1
    assert not cloud.driver.calls


def test_a_refused_request_changes_nothing(cloud: Cloud, ec2: Any) -> None:
    with refused("IdempotentParameterMismatch"):
        for kind in ("t3.small", "t3.micro"):
            launch(ec2, ClientToken="once", InstanceType=kind)
    until(lambda: len(cloud.driver.machines) == 1)
    assert len(ec2.describe_volumes()["Volumes"]) == 1


DRY: dict[str, Case] = {
    "RunInstances": lambda s: s.ec2.run_instances(
        ImageId=s.base, MinCount=1, MaxCount=1, InstanceType="t3.small", DryRun=True
    ),
    "StartInstances": lambda s: s.ec2.start_instances(InstanceIds=[s.stopped], DryRun=True),
    "StopInstances": lambda s: s.ec2.stop_instances(InstanceIds=[s.running], DryRun=True),
    "RebootInstances": lambda s: s.ec2.reboot_instances(InstanceIds=[s.running], DryRun=True),
    "TerminateInstances": lambda s: s.ec2.terminate_instances(InstanceIds=[s.running], DryRun=True),
    "ModifyInstanceAttribute": lambda s: s.ec2.modify_instance_attribute(
        InstanceId=s.running, DisableApiTermination={"Value": True}, DryRun=True
    ),
    "ModifyInstanceMetadataOptions": lambda s: s.ec2.modify_instance_metadata_options(
        InstanceId=s.running, HttpTokens="required", DryRun=True
    ),
    "ModifyInstanceCreditSpecification": lambda s: s.ec2.modify_instance_credit_specification(
        InstanceCreditSpecifications=[{"InstanceId": s.running, "CpuCredits": "standard"}], DryRun=True
    ),
    "CancelSpotInstanceRequests": lambda s: s.ec2.cancel_spot_instance_requests(
        SpotInstanceRequestIds=[s.spot_request], DryRun=True
    ),
    "CreateVolume": lambda s: s.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, DryRun=True),
    "DeleteVolume": lambda s: s.ec2.delete_volume(VolumeId=s.volume, DryRun=True),
    "AttachVolume": lambda s: s.ec2.attach_volume(
        VolumeId=s.spare_volume, InstanceId=s.stopped, Device="/dev/sdf", DryRun=True
    ),
    "ModifyVolume": lambda s: s.ec2.modify_volume(VolumeId=s.volume, Size=2, DryRun=True),
    "DetachVolume": lambda s: s.ec2.detach_volume(VolumeId=root_volume(s.ec2, s.stopped), DryRun=True),
    "CreateSnapshot": lambda s: s.ec2.create_snapshot(VolumeId=s.volume, DryRun=True),
    "CreateSnapshots": lambda s: s.ec2.create_snapshots(InstanceSpecification={"InstanceId": s.running}, DryRun=True),
    "CopySnapshot": lambda s: s.ec2.copy_snapshot(SourceRegion="us-east-1", SourceSnapshotId=s.snapshot, DryRun=True),
    "DeleteSnapshot": lambda s: s.ec2.delete_snapshot(SnapshotId=s.snapshot, DryRun=True),
    "ModifySnapshotAttribute": lambda s: s.ec2.modify_snapshot_attribute(
        SnapshotId=s.snapshot, CreateVolumePermission={"Add": [{"UserId": "111122223333"}]}, DryRun=True
    ),
    "ResetSnapshotAttribute": lambda s: s.ec2.reset_snapshot_attribute(
        SnapshotId=s.snapshot, Attribute="createVolumePermission", DryRun=True
    ),
    "ImportSnapshot": lambda s: s.ec2.import_snapshot(DiskContainer=s.importing, DryRun=True),
    "CancelImportTask": lambda s: s.ec2.cancel_import_task(ImportTaskId=s.import_task, DryRun=True),
    "CreateNatGateway": lambda s: s.ec2.create_nat_gateway(SubnetId=s.subnet, AllocationId=s.address, DryRun=True),
    "DeleteNatGateway": lambda s: s.ec2.delete_nat_gateway(NatGatewayId=s.nat_gateway, DryRun=True),
    "RegisterImage": lambda s: register(s.ec2, s.snapshot, "web-1", DryRun=True),
    "CreateImage": lambda s: s.ec2.create_image(InstanceId=s.running, Name="web-1", DryRun=True),
    "CopyImage": lambda s: s.ec2.copy_image(
        SourceRegion="us-east-1", SourceImageId=s.image, Name="web-2", Encrypted=True, DryRun=True
    ),
    "DeregisterImage": lambda s: s.ec2.deregister_image(ImageId=s.image, DryRun=True),
    "ModifyImageAttribute": lambda s: s.ec2.modify_image_attribute(
        ImageId=s.image, LaunchPermission={"Add": [{"UserId": "111122223333"}]}, DryRun=True
    ),
    "ResetImageAttribute": lambda s: s.ec2.reset_image_attribute(
        ImageId=s.image, Attribute="launchPermission", DryRun=True
    ),
    "EnableImageDeprecation": lambda s: s.ec2.enable_image_deprecation(
        ImageId=s.image, DeprecateAt="2035-01-01T00:00:00Z", DryRun=True
    ),
    "DisableImageDeprecation": lambda s: s.ec2.disable_image_deprecation(ImageId=s.image, DryRun=True),
    "EnableImageDeregistrationProtection": lambda s: s.ec2.enable_image_deregistration_protection(
        ImageId=s.image, DryRun=True
    ),
    "DisableImageDeregistrationProtection": lambda s: s.ec2.disable_image_deregistration_protection(
        ImageId=s.image, DryRun=True
    ),
    "EnableImageBlockPublicAccess": lambda s: s.ec2.enable_image_block_public_access(
        ImageBlockPublicAccessState="block-new-sharing", DryRun=True
    ),
    "DisableImageBlockPublicAccess": lambda s: s.ec2.disable_image_block_public_access(DryRun=True),
    "EnableSnapshotBlockPublicAccess": lambda s: s.ec2.enable_snapshot_block_public_access(
        State="block-all-sharing", DryRun=True
    ),
    "DisableSnapshotBlockPublicAccess": lambda s: s.ec2.disable_snapshot_block_public_access(DryRun=True),
    "EnableEbsEncryptionByDefault": lambda s: s.ec2.enable_ebs_encryption_by_default(DryRun=True),
    "DisableEbsEncryptionByDefault": lambda s: s.ec2.disable_ebs_encryption_by_default(DryRun=True),
    "ModifyEbsDefaultKmsKeyId": lambda s: s.ec2.modify_ebs_default_kms_key_id(KmsKeyId=s.kms_key, DryRun=True),
    "ResetEbsDefaultKmsKeyId": lambda s: s.ec2.reset_ebs_default_kms_key_id(DryRun=True),
    "CreateKeyPair": lambda s: s.ec2.create_key_pair(KeyName="key", KeyType="ed25519", DryRun=True),
    "ImportKeyPair": lambda s: s.ec2.import_key_pair(
        KeyName="key",
        PublicKeyMaterial=b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f x",
        DryRun=True,
    ),
    "DeleteKeyPair": lambda s: s.ec2.delete_key_pair(KeyName="key", DryRun=True),
    "AllocateAddress": lambda s: s.ec2.allocate_address(Domain="vpc", DryRun=True),
    "AssociateAddress": lambda s: s.ec2.associate_address(AllocationId=s.address, InstanceId=s.stopped, DryRun=True),
    "DisassociateAddress": lambda s: s.ec2.disassociate_address(AssociationId=s.association, DryRun=True),
    "ReleaseAddress": lambda s: s.ec2.release_address(AllocationId=s.address, DryRun=True),
    "CreateSecurityGroup": lambda s: s.ec2.create_security_group(GroupName="x", Description="x", DryRun=True),
    "DeleteSecurityGroup": lambda s: s.ec2.delete_security_group(GroupId=s.group, DryRun=True),
    "AuthorizeSecurityGroupIngress": lambda s: s.ec2.authorize_security_group_ingress(
        GroupId=s.group, IpPermissions=[tcp(22)], DryRun=True
    ),
    "AuthorizeSecurityGroupEgress": lambda s: s.ec2.authorize_security_group_egress(
        GroupId=s.group, IpPermissions=[tcp(22)], DryRun=True
    ),
    "RevokeSecurityGroupIngress": lambda s: s.ec2.revoke_security_group_ingress(
        GroupId=s.opened_group, IpPermissions=[tcp(22)], DryRun=True
    ),
    "RevokeSecurityGroupEgress": lambda s: s.ec2.revoke_security_group_egress(
        GroupId=s.group,
        IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
        DryRun=True,
    ),
    "ModifySecurityGroupRules": lambda s: s.ec2.modify_security_group_rules(
        GroupId=s.group,
        SecurityGroupRules=[
            {
                "SecurityGroupRuleId": s.rule,
                "SecurityGroupRule": {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "CidrIpv4": "10.0.0.0/8"},
            }
        ],
        DryRun=True,
    ),
    "UpdateSecurityGroupRuleDescriptionsIngress": lambda s: s.ec2.update_security_group_rule_descriptions_ingress(
        GroupId=s.opened_group, IpPermissions=[tcp(22)], DryRun=True
    ),
    "UpdateSecurityGroupRuleDescriptionsEgress": lambda s: s.ec2.update_security_group_rule_descriptions_egress(
        GroupId=s.group,
        SecurityGroupRuleDescriptions=[{"SecurityGroupRuleId": s.rule, "Description": "x"}],
        DryRun=True,
    ),
    "RequestSpotInstances": lambda s: s.ec2.request_spot_instances(
        LaunchSpecification={"ImageId": s.base, "InstanceType": "t3.small"}, DryRun=True
    ),
    "CreateFleet": lambda s: s.ec2.create_fleet(
        Type="instant",
        LaunchTemplateConfigs=[{"LaunchTemplateSpecification": {"LaunchTemplateId": s.template, "Version": "1"}}],
        TargetCapacitySpecification={"TotalTargetCapacity": 1},
        DryRun=True,
    ),
    "CreateLaunchTemplate": lambda s: s.ec2.create_launch_template(
        LaunchTemplateName="other", LaunchTemplateData={"ImageId": s.base}, DryRun=True
    ),
    "CreateLaunchTemplateVersion": lambda s: s.ec2.create_launch_template_version(
        LaunchTemplateId=s.template, LaunchTemplateData={"ImageId": s.base}, DryRun=True
    ),
    "ModifyLaunchTemplate": lambda s: s.ec2.modify_launch_template(
        LaunchTemplateId=s.template, DefaultVersion="1", DryRun=True
    ),
    "DeleteLaunchTemplate": lambda s: s.ec2.delete_launch_template(LaunchTemplateId=s.template, DryRun=True),
    "DeleteLaunchTemplateVersions": lambda s: s.ec2.delete_launch_template_versions(
        LaunchTemplateId=s.template, Versions=["1"], DryRun=True
    ),
    "CreatePlacementGroup": lambda s: s.ec2.create_placement_group(GroupName="far", DryRun=True),
    "DeletePlacementGroup": lambda s: s.ec2.delete_placement_group(GroupName=s.placement_group, DryRun=True),
    "MonitorInstances": lambda s: s.ec2.monitor_instances(InstanceIds=[s.running], DryRun=True),
    "UnmonitorInstances": lambda s: s.ec2.unmonitor_instances(InstanceIds=[s.running], DryRun=True),
    "ResetInstanceAttribute": lambda s: s.ec2.reset_instance_attribute(
        InstanceId=s.running, Attribute="sourceDestCheck", DryRun=True
    ),
    "EnableImage": lambda s: s.ec2.enable_image(ImageId=s.image, DryRun=True),
    "DisableImage": lambda s: s.ec2.disable_image(ImageId=s.image, DryRun=True),
    "CreateImageUsageReport": lambda s: s.ec2.create_image_usage_report(
        ImageId=s.image, ResourceTypes=[{"ResourceType": "ec2:Instance"}], DryRun=True
    ),
    "DeleteImageUsageReport": lambda s: s.ec2.delete_image_usage_report(ReportId=s.usage_report, DryRun=True),
    "ListImagesInRecycleBin": lambda s: s.ec2.list_images_in_recycle_bin(ImageIds=[s.recycled[0]], DryRun=True),
    "ListSnapshotsInRecycleBin": lambda s: s.ec2.list_snapshots_in_recycle_bin(
        SnapshotIds=[s.recycled[1]], DryRun=True
    ),
    "RestoreImageFromRecycleBin": lambda s: s.ec2.restore_image_from_recycle_bin(ImageId=s.recycled_image, DryRun=True),
    "RestoreSnapshotFromRecycleBin": lambda s: s.ec2.restore_snapshot_from_recycle_bin(
        SnapshotId=s.recycled[1], DryRun=True
    ),
    "CreateTags": lambda s: s.ec2.create_tags(Resources=[s.image], Tags=[{"Key": "x", "Value": "y"}], DryRun=True),
    "DeleteTags": lambda s: s.ec2.delete_tags(Resources=[s.image], Tags=[{"Key": "x"}], DryRun=True),
}


def test_every_action_that_changes_something_has_a_dry_run_here() -> None:
    changes = {name for name in OWN if not name.startswith(("Describe", "Get"))}
    assert set(DRY) == {name for name in changes if "DryRun" in query.operation(name).input_shape.members}


@pytest.mark.parametrize("action", DRY)
def test_a_dry_run_is_confirmed_and_changes_nothing(action: str, cloud: Cloud) -> None:
    scene = Scene(cloud)
    database = cloud.gateway.backend.database
    before: dict[str, int] = {}

    def rows() -> dict[str, int]:
        return {type(row).__name__ + row.id: hash(repr(row)) for table in database._tables.values() for row in table}

    def act_twice() -> None:
        with refused("DryRunOperation"):  # once to make what the case needs, once to look
            DRY[action](scene)
        before.update(rows())
        DRY[action](scene)

    with refused("DryRunOperation"):
        act_twice()
    assert rows() == before


def test_a_dry_run_is_denied_to_an_unauthorized_caller(cloud: Cloud) -> None:
    scene = Scene(cloud)
    cloud.gateway.backend.faults.add(
        Fault(effect="refuse", action="CreateSecurityGroup", code="UnauthorizedOperation", status=403)
    )
    with refused("UnauthorizedOperation"):
        DRY["CreateSecurityGroup"](scene)
