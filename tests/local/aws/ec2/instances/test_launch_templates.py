"""Launch templates, fleets and spot requests: launches in the forms that Packer and Terraform use."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import Cloud, base_image, instance, launch, refused

DATA = {"InstanceType": "t3.micro", "MetadataOptions": {"HttpTokens": "required"}}


def template(ec2: Any, name: str = "web", **data: Any) -> str:
    made = ec2.create_launch_template(
        LaunchTemplateName=name, LaunchTemplateData={"ImageId": base_image(ec2), **DATA, **data}
    )
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def launched(answer: Any) -> list[Any]:
    return [row for each in answer["Instances"] for row in each["InstanceIds"]]


def test_a_launch_takes_what_it_does_not_say_from_its_template(ec2: Any) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "from", "Value": "template"}]}]
    template(ec2, TagSpecifications=tags)
    answer = ec2.run_instances(LaunchTemplate={"LaunchTemplateName": "web"}, MinCount=1, MaxCount=1)
    [made] = answer["Instances"]
    assert (made["InstanceType"], made["MetadataOptions"]["HttpTokens"]) == ("t3.micro", "required")
    assert made["Tags"] == [{"Key": "from", "Value": "template"}]
    own = [{"ResourceType": "instance", "Tags": [{"Key": "from", "Value": "request"}]}]
    answer = ec2.run_instances(
        LaunchTemplate={"LaunchTemplateName": "web"}, MinCount=1, MaxCount=1, InstanceType="t3.small",
        TagSpecifications=own,
    )  # fmt: skip
    [made] = answer["Instances"]
    assert (made["InstanceType"], made["Tags"]) == ("t3.small", [{"Key": "from", "Value": "request"}])


def test_versions_are_numbered_and_one_of_them_is_the_default(ec2: Any) -> None:
    made = template(ec2)
    answer = ec2.create_launch_template_version(
        LaunchTemplateId=made, SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.large"}
    )
    version = answer["LaunchTemplateVersion"]
    assert (version["VersionNumber"], version["DefaultVersion"]) == (2, False)
    assert version["LaunchTemplateData"]["MetadataOptions"] == {"HttpTokens": "required"}

    def launched_type(version: str) -> str:
        chosen = {"LaunchTemplateId": made, "Version": version}
        [row] = ec2.run_instances(LaunchTemplate=chosen, MinCount=1, MaxCount=1)["Instances"]
        return str(row["InstanceType"])

    assert [launched_type(word) for word in ("1", "2", "$Latest", "$Default")] == [
        "t3.micro", "t3.large", "t3.large", "t3.micro"
    ]  # fmt: skip
    ec2.modify_launch_template(LaunchTemplateId=made, DefaultVersion="2")
    assert launched_type("$Default") == "t3.large"
    answer = ec2.delete_launch_template_versions(LaunchTemplateId=made, Versions=["1", "2", "9"])
    assert [row["VersionNumber"] for row in answer["SuccessfullyDeletedLaunchTemplateVersions"]] == [1]
    assert [row["VersionNumber"] for row in answer["UnsuccessfullyDeletedLaunchTemplateVersions"]] == [2, 9]
    [found] = ec2.describe_launch_template_versions(LaunchTemplateId=made)["LaunchTemplateVersions"]
    assert found["VersionNumber"] == 2


def numbers(ec2: Any, **params: Any) -> list[int]:
    pages = ec2.get_paginator("describe_launch_template_versions").paginate(
        LaunchTemplateName="web", PaginationConfig={"PageSize": 2}, **params
    )
    return [row["VersionNumber"] for page in pages for row in page["LaunchTemplateVersions"]]


def version(ec2: Any, **params: Any) -> int:
    given = {"LaunchTemplateName": "web", "LaunchTemplateData": {"InstanceType": "t3.nano"}, **params}
    return int(ec2.create_launch_template_version(**given)["LaunchTemplateVersion"]["VersionNumber"])


def test_versions_are_described_newest_first_by_words_numbers_and_ranges(ec2: Any) -> None:
    template(ec2)
    for _ in range(6):
        version(ec2)
    ec2.modify_launch_template(LaunchTemplateName="web", DefaultVersion="4")
    assert numbers(ec2) == [7, 6, 5, 4, 3, 2, 1]
    assert numbers(ec2, MinVersion="3", MaxVersion="5") == [5, 4, 3]
    assert numbers(ec2, MinVersion="6") == [7, 6]
    assert numbers(ec2, Versions=["$Default", "$Latest", "2"]) == [4, 7, 2]
    [found] = ec2.describe_launch_templates(LaunchTemplateNames=["web"])["LaunchTemplates"]
    assert (found["DefaultVersionNumber"], found["LatestVersionNumber"]) == (4, 7)
    with refused("InvalidLaunchTemplateId.VersionNotFound"):
        numbers(ec2, Versions=["8"])
    with refused("MissingParameter"):
        ec2.describe_launch_template_versions(Versions=["2"])


def test_a_number_is_never_used_twice(cloud: Cloud, ec2: Any) -> None:
    template(ec2)
    assert [version(ec2), version(ec2)] == [2, 3]
    ec2.delete_launch_template_versions(LaunchTemplateName="web", Versions=["3"])
    assert numbers(ec2) == [2, 1]
    cloud.restart()
    assert version(cloud.client()) == 4


def test_a_repeated_request_makes_one_version(ec2: Any) -> None:
    template(ec2)
    assert version(ec2, ClientToken="t" * 128) == version(ec2, ClientToken="t" * 128) == 2
    with refused("IdempotentParameterMismatch"):
        version(ec2, ClientToken="t" * 128, VersionDescription="other")
    assert numbers(ec2) == [2, 1]


def test_a_version_inherits_devices_but_not_their_snapshots(ec2: Any) -> None:
    device = {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-00000000000000001", "VolumeSize": 9}}
    template(ec2, BlockDeviceMappings=[device])
    made = ec2.create_launch_template_version(
        LaunchTemplateName="web", SourceVersion="1", LaunchTemplateData={"InstanceType": "t3.nano"}
    )["LaunchTemplateVersion"]
    assert made["LaunchTemplateData"]["BlockDeviceMappings"] == [{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 9}}]


def test_a_parameter_in_a_template_is_kept_and_shown_as_its_image_if_asked(cloud: Cloud, ec2: Any) -> None:
    cloud.client("ssm").put_parameter(Name="/images/web", Value=base_image(ec2), Type="String")
    ec2.create_launch_template(
        LaunchTemplateName="web", LaunchTemplateData={"ImageId": "resolve:ssm:/images/web", "InstanceType": "t3.small"}
    )
    cloud.restart()
    ec2 = cloud.client()

    def shown(**params: Any) -> str:
        [found] = ec2.describe_launch_template_versions(LaunchTemplateName="web", **params)["LaunchTemplateVersions"]
        return str(found["LaunchTemplateData"]["ImageId"])

    assert shown() == shown(ResolveAlias=False) == "resolve:ssm:/images/web"
    assert shown(ResolveAlias=True) == base_image(ec2)
    made = ec2.create_launch_template_version(
        LaunchTemplateName="web", SourceVersion="1", ResolveAlias=True, LaunchTemplateData={"InstanceType": "t3.nano"}
    )["LaunchTemplateVersion"]
    assert made["LaunchTemplateData"]["ImageId"] == base_image(ec2)


def test_templates_of_another_account_do_not_exist(cloud: Cloud, ec2: Any) -> None:
    made = template(ec2)
    with refused("InvalidLaunchTemplateId.NotFound"):
        cloud.client(other=True).describe_launch_template_versions(LaunchTemplateId=made)


def test_templates_are_described_tagged_and_deleted(cloud: Cloud, ec2: Any) -> None:
    made = template(ec2)
    template(ec2, "api")
    cloud.restart()
    ec2 = cloud.client()
    ec2.create_tags(Resources=[made], Tags=[{"Key": "team", "Value": "images"}])
    of_team = [{"Name": "tag:team", "Values": ["images"]}]
    [found] = ec2.describe_launch_templates(Filters=of_team)["LaunchTemplates"]
    assert (found["LaunchTemplateId"], found["LatestVersionNumber"]) == (made, 1)
    [latest, _] = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    assert latest["LaunchTemplateId"] == made
    ec2.delete_launch_template(LaunchTemplateName="web")
    assert [row["LaunchTemplateName"] for row in ec2.describe_launch_templates()["LaunchTemplates"]] == ["api"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"LaunchTemplateId": "lt-00000000000000001"}, "InvalidLaunchTemplateId.NotFound"),
        ({"LaunchTemplateName": "nobody"}, "InvalidLaunchTemplateName.NotFoundException"),
        ({"LaunchTemplateName": "web", "Version": "7"}, "InvalidLaunchTemplateId.VersionNotFound"),
        ({"LaunchTemplateName": "web", "Version": "first"}, "InvalidParameterValue"),
        ({}, "MissingParameter"),
    ],
)
def test_a_launch_from_a_template_that_does_not_exist_is_refused(given: dict[str, str], code: str, ec2: Any) -> None:
    template(ec2)
    with refused(code):
        ec2.run_instances(LaunchTemplate=given or {"Version": "1"}, MinCount=1, MaxCount=1)


def test_a_name_is_given_once(ec2: Any) -> None:
    template(ec2)
    with refused("InvalidLaunchTemplateName.AlreadyExistsException"):
        template(ec2)


def fleet(ec2: Any, *overrides: dict[str, Any], kind: str = "spot", count: int = 1) -> Any:
    """A fleet as Packer asks for it: instant, with a template and the instance types that may be taken."""
    return ec2.create_fleet(
        Type="instant",
        LaunchTemplateConfigs=[
            {
                "LaunchTemplateSpecification": {"LaunchTemplateName": "web", "Version": "1"},
                "Overrides": list(overrides),
            }
        ],
        TargetCapacitySpecification={"TotalTargetCapacity": count, "DefaultTargetCapacityType": kind},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "fleet", "Value": "yes"}]}],
    )


def test_an_instant_fleet_launches_spot_instances_of_its_template(ec2: Any) -> None:
    template(ec2)
    answer = fleet(ec2, {"InstanceType": "t3.small"}, count=2)
    made = launched(answer)
    assert (len(made), answer["Errors"]) == (2, [])
    for each in made:
        found = instance(ec2, each)
        assert (found["InstanceLifecycle"], found["InstanceType"]) == ("spot", "t3.small")
        assert found["Tags"] == [{"Key": "fleet", "Value": "yes"}]


def test_a_fleet_goes_on_with_the_next_pool_and_reports_the_first_ones_error(ec2: Any) -> None:
    template(ec2)
    answer = fleet(ec2, {"InstanceType": "m6g.large"}, {"InstanceType": "t3.small"}, kind="on-demand")
    assert [instance(ec2, each)["InstanceType"] for each in launched(answer)] == ["t3.small"]
    [error] = answer["Errors"]
    assert error["ErrorCode"] == "InvalidParameterValue"
    assert error["LaunchTemplateAndOverrides"]["Overrides"]["InstanceType"] == "m6g.large"


def test_a_fleet_without_a_pool_that_works_is_an_answer_without_instances(ec2: Any) -> None:
    template(ec2)
    answer = fleet(ec2, {"InstanceType": "m6g.large"})
    assert (answer["Instances"], len(answer["Errors"])) == ([], 1)


def test_other_kinds_of_fleets_are_refused(ec2: Any) -> None:
    template(ec2)
    with refused("UnsupportedOperation", match="instant"):
        ec2.create_fleet(
            LaunchTemplateConfigs=[{"LaunchTemplateSpecification": {"LaunchTemplateName": "web", "Version": "1"}}],
            TargetCapacitySpecification={"TotalTargetCapacity": 1},
        )


def test_a_spot_request_is_fulfilled_by_an_instance(ec2: Any) -> None:
    answer = ec2.request_spot_instances(
        InstanceCount=2,
        Type="one-time",
        SpotPrice="0.5",
        LaunchSpecification={"ImageId": base_image(ec2), "InstanceType": "t3.small"},
        TagSpecifications=[{"ResourceType": "spot-instances-request", "Tags": [{"Key": "a", "Value": "b"}]}],
    )
    ids = [row["SpotInstanceRequestId"] for row in answer["SpotInstanceRequests"]]
    assert len(ids) == 2
    ec2.get_waiter("spot_instance_request_fulfilled").wait(SpotInstanceRequestIds=ids)
    for row in ec2.describe_spot_instance_requests(SpotInstanceRequestIds=ids)["SpotInstanceRequests"]:
        assert (row["State"], row["Tags"]) == ("active", [{"Key": "a", "Value": "b"}])
        assert instance(ec2, row["InstanceId"])["InstanceLifecycle"] == "spot"


def test_a_placement_group_is_kept_named_by_launches_and_not_deleted_while_used(ec2: Any) -> None:
    with refused("InvalidPlacementGroup.Unknown"):
        launch(ec2, Placement={"GroupName": "near"})
    ec2.create_placement_group(GroupName="near", Strategy="cluster")
    with refused("InvalidPlacementGroup.Duplicate"):
        ec2.create_placement_group(GroupName="near", Strategy="spread")
    made = launch(ec2, Placement={"GroupName": "near"})
    assert instance(ec2, made)["Placement"]["GroupName"] == "near"
    [found] = ec2.describe_placement_groups(Filters=[{"Name": "strategy", "Values": ["cluster"]}])["PlacementGroups"]
    assert (found["GroupName"], found["State"]) == ("near", "available")
    with refused("InvalidPlacementGroup.InUse"):
        ec2.delete_placement_group(GroupName="near")
    with refused("InvalidPlacementGroup.Unknown"):
        ec2.describe_placement_groups(GroupNames=["far"])


def test_an_instance_profile_can_be_associated_replaced_and_taken_away(cloud: Cloud, ec2: Any) -> None:
    iam = cloud.client("iam")
    for name in ("web", "api"):
        iam.create_instance_profile(InstanceProfileName=name)
    made = launch(ec2)
    assert ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"] == []
    first = ec2.associate_iam_instance_profile(InstanceId=made, IamInstanceProfile={"Name": "web"})
    identifier = first["IamInstanceProfileAssociation"]["AssociationId"]
    with refused("IncorrectState"):
        ec2.associate_iam_instance_profile(InstanceId=made, IamInstanceProfile={"Name": "api"})
    second = ec2.replace_iam_instance_profile_association(AssociationId=identifier, IamInstanceProfile={"Name": "api"})[
        "IamInstanceProfileAssociation"
    ]
    assert second["AssociationId"] != identifier
    of_instance = [{"Name": "instance-id", "Values": [made]}]
    [found] = ec2.describe_iam_instance_profile_associations(Filters=of_instance)["IamInstanceProfileAssociations"]
    assert found["IamInstanceProfile"]["Arn"].endswith(":instance-profile/api")
    assert instance(ec2, made)["IamInstanceProfile"] == found["IamInstanceProfile"]
    ec2.disassociate_iam_instance_profile(AssociationId=second["AssociationId"])
    assert "IamInstanceProfile" not in instance(ec2, made)
    with refused("NoSuchAssociation"):
        ec2.disassociate_iam_instance_profile(AssociationId=identifier)


def test_small_actions_that_clients_call_on_every_instance(ec2: Any) -> None:
    made = launch(ec2)
    assert ec2.get_password_data(InstanceId=made)["PasswordData"] == ""
    [monitored] = ec2.monitor_instances(InstanceIds=[made])["InstanceMonitorings"]
    assert monitored["Monitoring"] == {"State": "pending"}
    assert instance(ec2, made)["Monitoring"] == {"State": "enabled"}
    ec2.unmonitor_instances(InstanceIds=[made])
    assert instance(ec2, made)["Monitoring"] == {"State": "disabled"}
    ec2.modify_instance_attribute(InstanceId=made, SourceDestCheck={"Value": False})
    ec2.reset_instance_attribute(InstanceId=made, Attribute="sourceDestCheck")
    assert instance(ec2, made)["SourceDestCheck"] is True
    assert ec2.describe_reserved_instances()["ReservedInstances"] == []
    volume = instance(ec2, made)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    attribute = ec2.describe_volume_attribute(VolumeId=volume, Attribute="autoEnableIO")
    assert attribute["AutoEnableIO"] == {"Value": False}
    [status] = ec2.describe_volume_status(VolumeIds=[volume])["VolumeStatuses"]
    assert status["VolumeStatus"]["Details"][0]["Name"] == "io-enabled"
