"""The metadata of running instances: its options and the credentials of their roles follow every change at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from tests.local.aws.harness import ACCOUNT, Cloud, instance, refused, running, stopped, until

EC2 = {"Service": "ec2.amazonaws.com"}
CREDENTIALS = "iam/security-credentials/web"


def metadata(cloud: Cloud, instance_id: str) -> Mapping[str, str]:
    return cloud.driver.machines[instance_id].metadata.values


def profile(cloud: Cloud, name: str = "web", *, principal: object = None, with_role: bool = True) -> str:
    """An instance profile and its role, of the same name; the profile's ARN."""
    iam = cloud.client("iam")
    statement = {"Effect": "Allow", "Principal": principal or EC2, "Action": "sts:AssumeRole"}
    made = iam.create_instance_profile(InstanceProfileName=name)
    if with_role:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [statement]}))
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return str(made["InstanceProfile"]["Arn"])


def keys(cloud: Cloud, instance_id: str, path: str = CREDENTIALS) -> dict[str, str]:
    """The role's credentials as the machine is served them, for `cloud.client`."""
    found = json.loads(metadata(cloud, instance_id)[path])
    assert (found["Code"], found["Type"]) == ("Success", "AWS-HMAC")
    return {
        "AccessKeyId": found["AccessKeyId"],
        "SecretAccessKey": found["SecretAccessKey"],
        "SessionToken": found["Token"],
    }


# options


def test_a_running_machine_obeys_changed_options_and_they_are_described(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    assert not cloud.driver.machines[made].metadata.tokens_required
    answer = ec2.modify_instance_metadata_options(
        InstanceId=made, HttpTokens="required", HttpPutResponseHopLimit=3, HttpEndpoint="enabled"
    )
    assert (answer["InstanceId"], answer["InstanceMetadataOptions"]["State"]) == (made, "pending")
    until(lambda: instance(ec2, made)["MetadataOptions"]["State"] == "applied")
    assert cloud.driver.machines[made].metadata.tokens_required
    described = instance(ec2, made)["MetadataOptions"]
    assert (described["HttpTokens"], described["HttpPutResponseHopLimit"]) == ("required", 3)
    ec2.modify_instance_metadata_options(InstanceId=made, HttpEndpoint="disabled")
    until(lambda: not cloud.driver.machines[made].metadata.is_enabled)
    assert instance(ec2, made)["MetadataOptions"]["HttpTokens"] == "required", "only what is named is changed"


def test_a_stopped_instance_has_changed_options_at_its_next_start(cloud: Cloud, ec2: Any) -> None:
    made = stopped(ec2)
    ec2.modify_instance_metadata_options(InstanceId=made, HttpTokens="required")
    assert instance(ec2, made)["MetadataOptions"]["State"] == "applied"
    ec2.start_instances(InstanceIds=[made])
    until(lambda: made in cloud.driver.machines)
    assert cloud.driver.machines[made].metadata.tokens_required


@pytest.mark.parametrize(("name", "value"), [("HttpTokens", "maybe"), ("HttpPutResponseHopLimit", 65)])
def test_options_that_do_not_exist_are_refused(ec2: Any, name: str, value: object) -> None:
    made = stopped(ec2)
    with refused("InvalidParameterValue"):
        ec2.modify_instance_metadata_options(InstanceId=made, **{name: value})


def test_a_restart_applies_options_that_were_pending(cloud: Cloud) -> None:
    ec2 = cloud.client()
    made = running(ec2)
    cloud.driver.fails.add("set_metadata")
    ec2.modify_instance_metadata_options(InstanceId=made, HttpTokens="required")
    until(lambda: ("set_metadata", made) in cloud.driver.calls)
    assert instance(ec2, made)["MetadataOptions"]["State"] == "pending"
    cloud.driver.fails.clear()
    cloud.restart()
    again = cloud.client()
    until(lambda: instance(again, made)["MetadataOptions"]["State"] == "applied")
    assert cloud.driver.machines[made].metadata.tokens_required


def test_tags_are_served_where_the_options_say_so(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    ec2.create_tags(Resources=[made], Tags=[{"Key": "Name", "Value": "web"}, {"Key": "a/b", "Value": "x"}])
    assert "tags/instance/Name" not in metadata(cloud, made)
    ec2.modify_instance_metadata_options(InstanceId=made, InstanceMetadataTags="enabled")
    until(lambda: metadata(cloud, made).get("tags/instance/Name") == "web")
    ec2.create_tags(Resources=[made], Tags=[{"Key": "Name", "Value": "db"}])
    until(lambda: metadata(cloud, made).get("tags/instance/Name") == "db")
    ec2.delete_tags(Resources=[made], Tags=[{"Key": "Name"}])
    until(lambda: "tags/instance/Name" not in metadata(cloud, made))


def test_an_attached_volume_is_in_the_metadata(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    zone = instance(ec2, made)["Placement"]["AvailabilityZone"]
    volume = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    until(lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    ec2.attach_volume(VolumeId=volume, InstanceId=made, Device="/dev/sdf")
    until(lambda: metadata(cloud, made).get("block-device-mapping/ebs1") == "/dev/sdf")
    ec2.detach_volume(VolumeId=volume)
    until(lambda: "block-device-mapping/ebs1" not in metadata(cloud, made))


# roles


def test_an_instance_acts_as_the_role_of_its_profile(cloud: Cloud, ec2: Any) -> None:
    arn = profile(cloud)
    made = running(ec2, IamInstanceProfile={"Name": "web"})
    info = json.loads(metadata(cloud, made)["iam/info"])
    assert (info["Code"], info["InstanceProfileArn"]) == ("Success", arn)
    assert info["InstanceProfileId"] == instance(ec2, made)["IamInstanceProfile"]["Id"]
    who = cloud.client("sts", keys=keys(cloud, made)).get_caller_identity()
    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/web/{made}"
    assert instance(cloud.client(keys=keys(cloud, made)), made)["InstanceId"] == made


def test_an_instance_may_do_what_its_role_allows(cloud: Cloud, ec2: Any) -> None:
    arn = profile(cloud)
    statement = {"Effect": "Allow", "Action": "ec2:DescribeImages", "Resource": "*"}
    cloud.client("iam").put_role_policy(
        RoleName="web", PolicyName="reads", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": statement})
    )
    made = running(ec2, IamInstanceProfile={"Arn": arn})
    own = cloud.client(keys=keys(cloud, made))
    own.describe_images(Owners=["self"])
    with refused("UnauthorizedOperation"):
        own.describe_instances()


def test_an_instance_without_a_profile_has_no_iam_in_its_metadata(cloud: Cloud, ec2: Any) -> None:
    made = running(ec2)
    assert not [path for path in metadata(cloud, made) if path.startswith("iam/")]


def test_a_profile_without_a_role_has_no_credentials(cloud: Cloud, ec2: Any) -> None:
    profile(cloud, with_role=False)
    made = running(ec2, IamInstanceProfile={"Name": "web"})
    assert [path for path in metadata(cloud, made) if path.startswith("iam/")] == ["iam/info"]


@pytest.mark.parametrize("principal", ["*", {"AWS": "*"}, {"Service": ["ecs.amazonaws.com"]}], ids=str)
def test_a_role_that_does_not_trust_ec2_gives_no_credentials(cloud: Cloud, ec2: Any, principal: object) -> None:
    profile(cloud, principal=principal)
    made = running(ec2, IamInstanceProfile={"Name": "web"})
    assert json.loads(metadata(cloud, made)[CREDENTIALS])["Code"] == "AssumeRoleUnauthorizedAccess"


def test_profiles_that_are_associated_and_disassociated_take_effect_at_once(cloud: Cloud, ec2: Any) -> None:
    profile(cloud)
    profile(cloud, "db")
    made = running(ec2)
    found = ec2.associate_iam_instance_profile(InstanceId=made, IamInstanceProfile={"Name": "web"})
    until(lambda: CREDENTIALS in metadata(cloud, made))
    cloud.client("sts", keys=keys(cloud, made)).get_caller_identity()
    association = found["IamInstanceProfileAssociation"]["AssociationId"]
    replaced = ec2.replace_iam_instance_profile_association(
        AssociationId=association, IamInstanceProfile={"Name": "db"}
    )
    until(lambda: "iam/security-credentials/db" in metadata(cloud, made))
    assert CREDENTIALS not in metadata(cloud, made)
    ec2.disassociate_iam_instance_profile(AssociationId=replaced["IamInstanceProfileAssociation"]["AssociationId"])
    until(lambda: not [path for path in metadata(cloud, made) if path.startswith("iam/")])


def test_credentials_are_renewed_before_they_expire(cloud: Cloud, ec2: Any) -> None:
    profile(cloud)
    made = running(ec2, IamInstanceProfile={"Name": "web"})
    first = keys(cloud, made)
    cloud.admin("POST", "clock", {"advance": 4 * 3600})
    ec2.create_tags(Resources=[made], Tags=[{"Key": "x", "Value": "y"}])
    assert keys(cloud, made) == first
    cloud.admin("POST", "clock", {"advance": 3600 + 60})
    until(lambda: keys(cloud, made) != first)
    for good in (first, keys(cloud, made)):
        cloud.client("sts", keys=good).get_caller_identity()
    cloud.admin("POST", "clock", {"advance": 3600})
    with refused("ExpiredToken"):
        cloud.client("sts", keys=first).get_caller_identity()


def test_a_restart_keeps_credentials_that_last(cloud: Cloud, ec2: Any) -> None:
    profile(cloud)
    made = running(ec2, IamInstanceProfile={"Name": "web"})
    before = keys(cloud, made)
    cloud.driver.calls.clear()
    cloud.restart()
    until(lambda: ("set_metadata", made) in cloud.driver.calls)
    assert keys(cloud, made) == before


def test_no_secret_of_a_role_is_logged(cloud: Cloud, ec2: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    profile(cloud)
    made = running(ec2, IamInstanceProfile={"Name": "web"})
    cloud.driver.fails.add("set_metadata")
    ec2.modify_instance_metadata_options(InstanceId=made, HttpTokens="required")
    until(lambda: ("set_metadata", made) in cloud.driver.calls)
    secret = keys(cloud, made)["SecretAccessKey"]
    assert secret not in caplog.text
    assert secret not in repr(cloud.driver.machines[made])
