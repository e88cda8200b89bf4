"""Auto Scaling groups and launch configurations: kept and described, as things that use images."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import ACCOUNT, Cloud, base_image, caller, may, refused

ZONES = {"AvailabilityZones": ["us-east-1a"], "MinSize": 0, "MaxSize": 2}


@pytest.fixture
def scaling(cloud: Cloud) -> Any:
    return cloud.client("autoscaling")


def template(cloud: Cloud, name: str = "web") -> str:
    ec2 = cloud.client()
    data = {"ImageId": base_image(ec2), "InstanceType": "t3.small"}
    made = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def configuration(cloud: Cloud, name: str = "web") -> None:
    image_id = base_image(cloud.client())
    given = {"LaunchConfigurationName": name, "ImageId": image_id, "InstanceType": "t3.small"}
    cloud.client("autoscaling").create_launch_configuration(**given)


def group(scaling: Any, name: str = "web", **params: Any) -> None:
    scaling.create_auto_scaling_group(AutoScalingGroupName=name, **{**ZONES, **params})


def described(scaling: Any, name: str = "web") -> Any:
    [found] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
    return found


def test_a_group_of_a_launch_template_is_described_after_a_restart(cloud: Cloud, scaling: Any) -> None:
    template_id = template(cloud)
    tags = [{"Key": "team", "Value": "images", "PropagateAtLaunch": True}]
    group(scaling, LaunchTemplate={"LaunchTemplateName": "web", "Version": "$Latest"}, Tags=tags)
    cloud.restart()
    found = described(cloud.client("autoscaling"))
    expected = {"LaunchTemplateId": template_id, "LaunchTemplateName": "web", "Version": "$Latest"}
    assert found["LaunchTemplate"] == expected
    assert (found["MinSize"], found["MaxSize"], found["DesiredCapacity"]) == (0, 2, 0)
    assert (found["DefaultCooldown"], found["HealthCheckType"], found["Instances"]) == (300, "EC2", [])
    assert found["AvailabilityZones"] == ["us-east-1a"]
    assert found["AutoScalingGroupARN"].endswith(":autoScalingGroupName/web")
    [tag] = found["Tags"]
    assert (tag["ResourceId"], tag["Key"], tag["PropagateAtLaunch"]) == ("web", "team", True)


def test_a_group_of_a_launch_configuration_keeps_it_in_use(cloud: Cloud, scaling: Any) -> None:
    configuration(cloud)
    group(scaling, LaunchConfigurationName="web")
    assert described(scaling)["LaunchConfigurationName"] == "web"
    with refused("ResourceInUse", match="attached to AutoScalingGroup web"):
        scaling.delete_launch_configuration(LaunchConfigurationName="web")
    scaling.delete_auto_scaling_group(AutoScalingGroupName="web")
    scaling.delete_launch_configuration(LaunchConfigurationName="web")
    assert scaling.describe_launch_configurations()["LaunchConfigurations"] == []


def test_a_mixed_group_names_every_template(cloud: Cloud, scaling: Any) -> None:
    first, second = template(cloud), template(cloud, "arm")
    override = {"InstanceType": "t4g.small", "LaunchTemplateSpecification": {"LaunchTemplateName": "arm"}}
    policy = {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateName": "web", "Version": "1"},
            "Overrides": [{"InstanceType": "t3.small"}, override],
        },
        "InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": 50},
    }
    group(scaling, MixedInstancesPolicy=policy)
    found = described(scaling)["MixedInstancesPolicy"]
    assert found["LaunchTemplate"]["LaunchTemplateSpecification"]["LaunchTemplateId"] == first
    assert found["LaunchTemplate"]["Overrides"][1]["LaunchTemplateSpecification"]["LaunchTemplateId"] == second
    assert found["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] == 50


def test_a_launch_configuration_is_described_with_its_image(cloud: Cloud) -> None:
    configuration(cloud)
    cloud.restart()
    [found] = cloud.client("autoscaling").describe_launch_configurations()["LaunchConfigurations"]
    assert found["ImageId"] == base_image(cloud.client())
    assert found["InstanceType"] == "t3.small"
    assert found["LaunchConfigurationARN"].startswith(f"arn:aws:autoscaling:us-east-1:{ACCOUNT}:launchConfiguration:")


def test_an_update_replaces_the_source_and_keeps_the_rest(cloud: Cloud, scaling: Any) -> None:
    configuration(cloud)
    template(cloud)
    group(scaling, LaunchConfigurationName="web")
    scaling.update_auto_scaling_group(
        AutoScalingGroupName="web", LaunchTemplate={"LaunchTemplateName": "web"}, MaxSize=9
    )
    found = described(scaling)
    assert "LaunchConfigurationName" not in found
    assert (found["LaunchTemplate"]["LaunchTemplateName"], found["MaxSize"], found["MinSize"]) == ("web", 9, 0)


def test_a_group_outlives_its_template(cloud: Cloud, scaling: Any) -> None:
    template_id = template(cloud)
    group(scaling, LaunchTemplate={"LaunchTemplateId": template_id})
    cloud.client().delete_launch_template(LaunchTemplateId=template_id)
    assert described(scaling)["LaunchTemplate"] == {"LaunchTemplateId": template_id}


def test_groups_and_configurations_come_in_pages_and_by_tags(cloud: Cloud, scaling: Any) -> None:
    template(cloud)
    names = [f"web-{number:02}" for number in range(7)]
    for name in names:
        configuration(cloud, name)
        group(scaling, name, LaunchTemplate={"LaunchTemplateName": "web"}, Tags=[{"Key": "name", "Value": name}])
    for operation, key, field in (
        ("describe_auto_scaling_groups", "AutoScalingGroups", "AutoScalingGroupName"),
        ("describe_launch_configurations", "LaunchConfigurations", "LaunchConfigurationName"),
    ):
        pages = list(scaling.get_paginator(operation).paginate(PaginationConfig={"PageSize": 3}))
        assert [[row[field] for row in page[key]] for page in pages] == [names[:3], names[3:6], names[6:]]
    by_tag = [{"Name": "tag:name", "Values": ["web-03"]}]
    [found] = scaling.describe_auto_scaling_groups(Filters=by_tag)["AutoScalingGroups"]
    assert found["AutoScalingGroupName"] == "web-03"
    assert cloud.client("autoscaling", other=True).describe_auto_scaling_groups()["AutoScalingGroups"] == []
    assert cloud.client("autoscaling", "eu-west-1").describe_auto_scaling_groups()["AutoScalingGroups"] == []


@pytest.mark.parametrize(
    ("given", "code", "match"),
    [
        ({}, "ValidationError", "either LaunchTemplate"),
        ({"LaunchTemplate": {"LaunchTemplateName": "nobody"}}, "ValidationError", "nobody, does not exist"),
        ({"LaunchTemplate": {"LaunchTemplateName": "web", "Version": "9"}}, "ValidationError", "version 9"),
        ({"LaunchConfigurationName": "nobody"}, "ValidationError", "not found"),
        ({"LaunchTemplate": {"LaunchTemplateName": "web"}, "MinSize": 3}, "ValidationError", "Max bound"),
        ({"LaunchTemplate": {"LaunchTemplateName": "web"}, "DesiredCapacity": 3}, "ValidationError", "between"),
        ({"LaunchTemplate": {"LaunchTemplateName": "web"}, "DesiredCapacity": 1}, "UnsupportedOperation", "MinSize=0"),
        (
            {"LaunchTemplate": {"LaunchTemplateName": "web"}, "AvailabilityZones": ["us-east-1q"]},
            "ValidationError",
            "1q",
        ),
        (
            {"LaunchTemplate": {"LaunchTemplateName": "web"}, "VPCZoneIdentifier": "subnet-1"},
            "ValidationError",
            "subnet",
        ),
        (
            {"MixedInstancesPolicy": {"LaunchTemplate": {"Overrides": [{"InstanceType": "t3.nano"}]}}},
            "ValidationError",
            "LaunchTemplateSpecification",
        ),
    ],
)
def test_a_group_that_cannot_be_is_refused(
    given: dict[str, Any], code: str, match: str, cloud: Cloud, scaling: Any
) -> None:
    template(cloud)
    with refused(code, match=match):
        group(scaling, **given)
    assert scaling.describe_auto_scaling_groups()["AutoScalingGroups"] == []


def test_a_name_is_given_once_and_unknown_names_are_refused(cloud: Cloud, scaling: Any) -> None:
    template(cloud)
    group(scaling, LaunchTemplate={"LaunchTemplateName": "web"})
    configuration(cloud)
    with refused("AlreadyExists"):
        group(scaling, LaunchTemplate={"LaunchTemplateName": "web"})
    with refused("AlreadyExists"):
        configuration(cloud)
    for ask in (scaling.delete_auto_scaling_group, scaling.update_auto_scaling_group):
        with refused("ValidationError", match="not found"):
            ask(AutoScalingGroupName="nobody")
    with refused("ValidationError", match="not found"):
        scaling.delete_launch_configuration(LaunchConfigurationName="nobody")
    with refused("ValidationError", match="does not exist"):
        scaling.create_launch_configuration(
            LaunchConfigurationName="x", ImageId="ami-00000000000000001", InstanceType="t3.small"
        )


def test_describing_and_deleting_are_permissions_of_their_own(cloud: Cloud, scaling: Any) -> None:
    template(cloud)
    for name in ("web", "api"):
        group(scaling, name, LaunchTemplate={"LaunchTemplateName": "web"})
    own = f"arn:aws:autoscaling:us-east-1:{ACCOUNT}:autoScalingGroup:*:autoScalingGroupName/web"
    limited = caller(cloud, may("autoscaling:DeleteAutoScalingGroup", own), service="autoscaling")
    with refused("AccessDenied", match="autoscaling:DescribeAutoScalingGroups"):
        limited.describe_auto_scaling_groups()
    with refused("AccessDenied", match="autoscaling:DeleteAutoScalingGroup on resource: .*/api"):
        limited.delete_auto_scaling_group(AutoScalingGroupName="api")
    limited.delete_auto_scaling_group(AutoScalingGroupName="web")


def test_a_fault_can_refuse_what_a_check_reads(cloud: Cloud, scaling: Any) -> None:
    refuse = {"effect": "refuse", "action": "DescribeLaunchConfigurations", "code": "AccessDenied", "status": 403}
    cloud.admin("POST", "faults", refuse)
    with refused("AccessDenied"):
        scaling.describe_launch_configurations()
    assert scaling.describe_auto_scaling_groups()["AutoScalingGroups"] == []
