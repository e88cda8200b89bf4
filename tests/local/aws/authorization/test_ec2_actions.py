"""Every EC2 action asks IAM for its own permission, on the resources that it touches."""

from __future__ import annotations

from typing import Any

import pytest

from imagepipe.iam.facts import ACTIONS
from imagepipe.local.aws.authorization.ec2 import REQUESTS
from imagepipe.local.aws.ec2.actions import OWN
from tests.local.aws.ec2.test_refusals import DRY, Scene
from tests.local.aws.harness import ACCOUNT, Cloud, base_image, caller, may, refused, running

ALLOW = {"Effect": "Allow", "Action": "*", "Resource": "*"}
FURTHER = {"CreateFleet": ["ec2:RunInstances"]}
"""Permissions that an action needs besides its own."""
HERE = f"arn:aws:ec2:us-east-1:{ACCOUNT}:"


def test_the_permissions_of_every_action_are_known() -> None:
    known = REQUESTS.keys() | {action.partition(":")[2] for action in ACTIONS}
    assert {action for action in OWN if not action.startswith("Describe")} <= known


@pytest.mark.parametrize("action", DRY)
def test_an_action_needs_its_own_permission_and_no_other(action: str, cloud: Cloud) -> None:
    scene = Scene(cloud)
    with refused("DryRunOperation"):  # makes what the case needs, as a caller without a policy
        DRY[action](scene)
    deny = {"Effect": "Deny", "Action": f"ec2:{action}", "Resource": "*"}
    scene.__dict__["ec2"] = caller(cloud, ALLOW, deny)
    with refused("UnauthorizedOperation", match=f"ec2:{action} "):
        DRY[action](scene)
    allowed = [f"ec2:{action}", "ec2:Describe*", *FURTHER.get(action, [])]
    scene.__dict__["ec2"] = caller(cloud, *map(may, allowed))
    with refused("DryRunOperation"):
        DRY[action](scene)


def test_an_image_by_a_parameter_needs_the_permission_to_read_it(cloud: Cloud, ec2: Any) -> None:
    cloud.client("ssm").put_parameter(Name="/images/web", Value=base_image(ec2), Type="String")
    launch = {"ImageId": "resolve:ssm:/images/web:1", "InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1}
    with refused("UnauthorizedOperation", match="ssm:GetParameters on resource: .*:parameter/images/web"):
        caller(cloud, may("ec2:*")).run_instances(**launch, DryRun=True)
    reads = may("ssm:GetParameters", f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/images/*")
    with refused("DryRunOperation"):
        caller(cloud, may("ec2:*"), reads).run_instances(**launch, DryRun=True)
    spot = {"ImageId": "resolve:ssm:/images/web", "InstanceType": "t3.small"}
    with refused("UnauthorizedOperation", match="ssm:GetParameters"):
        caller(cloud, may("ec2:*")).request_spot_instances(LaunchSpecification=spot, DryRun=True)


def test_the_parameter_of_a_launch_template_is_read_with_the_callers_permissions_too(cloud: Cloud, ec2: Any) -> None:
    cloud.client("ssm").put_parameter(Name="web", Value=base_image(ec2), Type="String")
    data = {"ImageId": "resolve:ssm:web", "InstanceType": "t3.small"}
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
    named = {"LaunchTemplate": {"LaunchTemplateName": "web"}, "MinCount": 1, "MaxCount": 1, "DryRun": True}
    with refused("UnauthorizedOperation", match="ssm:GetParameters"):
        caller(cloud, may("ec2:*")).run_instances(**named)
    with refused("DryRunOperation"):
        caller(cloud, may("ec2:*"), may("ssm:GetParameters")).run_instances(**named)


def test_the_image_of_a_parameter_in_a_template_is_shown_to_those_who_may_read_it(cloud: Cloud, ec2: Any) -> None:
    cloud.client("ssm").put_parameter(Name="/images/web", Value=base_image(ec2), Type="String")
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": "resolve:ssm:/images/web"})
    asked = {"LaunchTemplateName": "web", "ResolveAlias": True}
    with refused("UnauthorizedOperation", match="ssm:GetParameters on resource: .*:parameter/images/web"):
        caller(cloud, may("ec2:*")).describe_launch_template_versions(**asked)
    caller(cloud, may("ec2:*")).describe_launch_template_versions(LaunchTemplateName="web")
    caller(cloud, may("ec2:*"), may("ssm:GetParameters")).describe_launch_template_versions(**asked)


def test_a_launch_template_is_a_resource_of_the_launch(cloud: Cloud, ec2: Any) -> None:
    data = {"ImageId": base_image(ec2), "InstanceType": "t3.small"}
    tags = [{"ResourceType": "launch-template", "Tags": [{"Key": "team", "Value": "web"}]}]
    made = ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data, TagSpecifications=tags)
    identifier = made["LaunchTemplate"]["LaunchTemplateId"]
    rest = may("ec2:RunInstances", [f"{HERE}{kind}/*" for kind in KINDS] + ["arn:aws:ec2:us-east-1::image/*"])
    named = {"LaunchTemplate": {"LaunchTemplateName": "web"}, "MinCount": 1, "MaxCount": 1, "DryRun": True}
    with refused("UnauthorizedOperation", match=f"launch-template/{identifier}"):
        caller(cloud, rest).run_instances(**named)
    ours = may("ec2:RunInstances", f"{HERE}launch-template/*", StringEquals={"aws:ResourceTag/team": "web"})
    with refused("DryRunOperation"):
        caller(cloud, rest, ours).run_instances(**named)


KINDS = ("instance", "network-interface", "security-group", "subnet", "volume")


def test_a_fleet_launches_with_the_callers_permissions(cloud: Cloud, ec2: Any) -> None:
    data = {"ImageId": base_image(ec2), "InstanceType": "t3.small"}
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
    fleet = {
        "Type": "instant",
        "TargetCapacitySpecification": {"TotalTargetCapacity": 1},
        "LaunchTemplateConfigs": [
            {"LaunchTemplateSpecification": {"LaunchTemplateName": "web", "Version": "1"}, "Overrides": []}
        ],
        "DryRun": True,
    }
    with refused("UnauthorizedOperation", match="ec2:RunInstances on resource"):
        caller(cloud, may("ec2:CreateFleet")).create_fleet(**fleet)


def test_volumes_and_instances_are_told_apart_by_their_arns_and_tags(cloud: Cloud, ec2: Any) -> None:
    instance = running(ec2)
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    attach = {"InstanceId": instance, "VolumeId": volume, "Device": "/dev/sdf", "DryRun": True}
    ec2.create_tags(Resources=[instance], Tags=[{"Key": "team", "Value": "web"}])
    by_tag = may("ec2:AttachVolume", f"{HERE}instance/*", StringEquals={"ec2:ResourceTag/team": "web"})
    with refused("UnauthorizedOperation", match=f"ec2:AttachVolume on resource: {HERE}volume/{volume}"):
        caller(cloud, by_tag).attach_volume(**attach)
    plain = may("ec2:*", f"{HERE}volume/*", StringEquals={"ec2:Encrypted": "false"})
    both = caller(cloud, by_tag, plain)
    ec2.get_waiter("volume_available").wait(VolumeIds=[volume], WaiterConfig={"Delay": 0.01, "MaxAttempts": 500})
    with refused("DryRunOperation"):
        both.attach_volume(**attach)
    with refused("DryRunOperation"):
        both.modify_volume(VolumeId=volume, Size=2, DryRun=True)
    encrypted = may("ec2:CreateVolume", f"{HERE}volume/*", StringEquals={"ec2:Encrypted": "true"})
    with refused("UnauthorizedOperation", match="ec2:CreateVolume"):
        caller(cloud, encrypted).create_volume(AvailabilityZone="us-east-1a", Size=1)


def test_an_address_is_the_same_resource_however_it_is_named(cloud: Cloud, ec2: Any) -> None:
    made = ec2.allocate_address(Domain="vpc")
    arn = f"{HERE}elastic-ip/{made['AllocationId']}"
    for named in ({"AllocationId": made["AllocationId"]}, {"PublicIp": made["PublicIp"]}):
        with refused("UnauthorizedOperation", match=f"ec2:ReleaseAddress on resource: {arn}"):
            caller(cloud, may("ec2:Describe*")).release_address(**named, DryRun=True)
        with refused("DryRunOperation"):
            caller(cloud, may("ec2:ReleaseAddress", arn)).release_address(**named, DryRun=True)


def test_tags_of_a_new_address_need_the_permission_to_tag(cloud: Cloud) -> None:
    tags = [{"ResourceType": "elastic-ip", "Tags": [{"Key": "team", "Value": "web"}]}]
    with refused("UnauthorizedOperation", match=r"ec2:CreateTags on resource: .*:elastic-ip/\*"):
        caller(cloud, may("ec2:AllocateAddress")).allocate_address(Domain="vpc", TagSpecifications=tags)


def test_a_group_that_is_named_by_its_name_is_the_same_resource(cloud: Cloud, ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    with refused("UnauthorizedOperation", match=f"security-group/{group}"):
        caller(cloud, may("ec2:Describe*")).delete_security_group(GroupName="web")


@pytest.mark.parametrize(
    "call",
    ["cancel_import_task", "delete_key_pair", "delete_launch_template", "delete_security_group", "release_address"],
)
def test_a_request_that_names_nothing_needs_the_permission_too(call: str, cloud: Cloud) -> None:
    with refused("UnauthorizedOperation"):
        getattr(caller(cloud, may("ec2:Describe*")), call)()
