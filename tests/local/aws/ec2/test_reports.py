"""Defects that people reported of other emulators of EC2: each test names the report."""

from __future__ import annotations

from typing import Any

from tests.local.aws.harness import (
    available,
    base_image,
    image,
    instance,
    launch,
    refused,
    register,
    running,
    snapshot_of,
)

TAGS = [{"Key": "team", "Value": "images"}]


def test_the_volumes_of_a_launch_template_have_its_sizes_and_tags(ec2: Any) -> None:
    # github.com/getmoto/moto/issues/4718 and 4987: a volume of the default size, and no tags.
    base = base_image(ec2)
    device = {"DeviceName": image(ec2, base)["RootDeviceName"], "Ebs": {"VolumeSize": 20, "VolumeType": "gp3"}}
    tags = [{"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "volume")]
    data = {"ImageId": base, "InstanceType": "t3.small", "BlockDeviceMappings": [device], "TagSpecifications": tags}
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
    [made] = ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate={"LaunchTemplateName": "web"})["Instances"]
    assert made["Tags"] == TAGS
    [volume] = ec2.describe_volumes()["Volumes"]
    assert (volume["Size"], volume["VolumeType"], volume["Tags"]) == (20, "gp3", TAGS)


def test_a_device_of_the_image_can_be_left_out_of_a_launch(ec2: Any) -> None:
    # github.com/getmoto/moto/issues/4852: NoDevice was refused.
    snapshot = snapshot_of(ec2, running(ec2))
    second = {"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": snapshot}}
    root = {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}}
    built = available(ec2, register(ec2, snapshot, "two", BlockDeviceMappings=[root, second]))
    made = launch(ec2, ImageId=built, BlockDeviceMappings=[{"DeviceName": "/dev/sdb", "NoDevice": ""}])
    assert [row["DeviceName"] for row in instance(ec2, made)["BlockDeviceMappings"]] == ["/dev/xvda"]


def test_a_launch_permission_for_an_organization_is_described(ec2: Any) -> None:
    # github.com/getmoto/moto/issues/7318: it was silently ignored.
    built = register(ec2, snapshot_of(ec2, running(ec2)), "web")
    arn = "arn:aws:organizations::111122223333:organization/o-abcdefghij"
    ec2.modify_image_attribute(ImageId=built, Attribute="launchPermission", OperationType="add", OrganizationArns=[arn])
    answer = ec2.describe_image_attribute(ImageId=built, Attribute="launchPermission")
    assert answer["LaunchPermissions"] == [{"OrganizationArn": arn}]


def test_the_attribute_of_a_snapshot_names_the_snapshot_of_the_request(ec2: Any) -> None:
    # github.com/localstack/localstack/issues/12374: always the same id.
    snapshot = snapshot_of(ec2, running(ec2))
    answer = ec2.describe_snapshot_attribute(SnapshotId=snapshot, Attribute="createVolumePermission")
    assert (answer["SnapshotId"], answer["CreateVolumePermissions"]) == (snapshot, [])


def test_a_volume_without_a_size_and_a_snapshot_is_refused_and_leaves_nothing(ec2: Any) -> None:
    # github.com/localstack/localstack/issues/11522: InternalError, and DescribeVolumes failed from then on.
    with refused("MissingParameter", match="size"):
        ec2.create_volume(AvailabilityZone="us-east-1a")
    assert ec2.describe_volumes()["Volumes"] == []


def test_images_are_found_by_their_tags_and_by_nothing_else(ec2: Any) -> None:
    # github.com/floci-io/floci/issues/3772: the filter was ignored, and the tags were not described.
    built = register(ec2, snapshot_of(ec2, running(ec2)), "web")
    ec2.create_tags(Resources=[built], Tags=TAGS)

    def found(value: str) -> list[str]:
        filters = [{"Name": "tag:team", "Values": [value]}]
        return [row["ImageId"] for row in ec2.describe_images(Filters=filters)["Images"]]

    assert (found("images"), found("other")) == ([built], [])
    assert image(ec2, built)["Tags"] == TAGS


def test_public_images_are_executable_by_self_only_if_shared_with_the_caller(ec2: Any) -> None:
    # github.com/getmoto/moto/pull/7750 answers public images for `self`; on EC2, `self` means explicit permissions.
    # (API reference, DescribeImages, ExecutableUsers: "Scopes the images by users with explicit launch permissions.")
    assert ec2.describe_images(ExecutableUsers=["self"])["Images"] == []
    assert ec2.describe_images(ExecutableUsers=["all"])["Images"]


def test_rules_are_revoked_by_their_ids_and_returned(ec2: Any) -> None:
    # github.com/ministackorg/ministack/pull/1346: the ids were ignored, and the rules stayed.
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    for side in ("ingress", "egress"):
        rules = [
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": group}]},
        ]
        answer = getattr(ec2, f"authorize_security_group_{side}")(GroupId=group, IpPermissions=rules)
        first, second = (rule["SecurityGroupRuleId"] for rule in answer["SecurityGroupRules"])
        revoke = getattr(ec2, f"revoke_security_group_{side}")
        with refused("InvalidSecurityGroupRuleId.NotFound"):
            revoke(GroupId=group, SecurityGroupRuleIds=[first, "sgr-00000000000000001"])
        revoked = revoke(GroupId=group, SecurityGroupRuleIds=[first, second])["RevokedSecurityGroupRules"]
        assert [rule["SecurityGroupRuleId"] for rule in revoked] == [first, second]
        assert (revoked[0]["CidrIpv4"], revoked[1]["ReferencedGroupId"]) == ("10.0.0.0/8", group)
        left = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group]}])
        assert {first, second}.isdisjoint(rule["SecurityGroupRuleId"] for rule in left["SecurityGroupRules"])


def test_a_fleet_launches_the_version_of_the_template_that_it_names(ec2: Any) -> None:
    # github.com/getmoto/moto/pull/9857: always the latest version.
    data = {"ImageId": base_image(ec2), "InstanceType": "t3.micro"}
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
    ec2.create_launch_template_version(
        LaunchTemplateName="web", SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.large"}
    )
    for version, kind in (("1", "t3.micro"), ("2", "t3.large"), ("$Latest", "t3.large"), ("$Default", "t3.micro")):
        answer = ec2.create_fleet(
            Type="instant",
            TargetCapacitySpecification={"TotalTargetCapacity": 1, "DefaultTargetCapacityType": "on-demand"},
            LaunchTemplateConfigs=[
                {"LaunchTemplateSpecification": {"LaunchTemplateName": "web", "Version": version}},
            ],
        )
        assert answer["Instances"][0]["InstanceType"] == kind


def test_a_snapshot_cannot_take_the_place_of_an_instance_store_volume(ec2: Any) -> None:
    # github.com/hashicorp/packer/issues/2765: RunInstances accepts a size there, and refuses a snapshot.
    snapshot = snapshot_of(ec2, running(ec2))
    mappings = [
        {"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot}},
        {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
    ]
    built = available(ec2, register(ec2, snapshot, "two", BlockDeviceMappings=mappings))
    with refused("InvalidBlockDeviceMapping", match="only be modified on EBS devices"):
        launch(ec2, ImageId=built, BlockDeviceMappings=[{"DeviceName": "/dev/sdb", "Ebs": {"SnapshotId": snapshot}}])
    launch(ec2, ImageId=built, BlockDeviceMappings=[{"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1}}])
