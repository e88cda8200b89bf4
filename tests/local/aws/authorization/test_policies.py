"""Callers under policies: what they may do, how they are refused, and what is kept of what they asked."""

from __future__ import annotations

import json
import urllib.error
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from imagepipe.local.aws.authorization.ec2 import REQUESTS
from imagepipe.local.aws.ec2.actions import OWN
from tests.local.aws.harness import ACCOUNT, Cloud, running

EVERYTHING = {"Sid": "All", "Effect": "Allow", "Action": "*", "Resource": "*"}


def _key(cloud: Cloud, *statements: Mapping[str, Any]) -> dict[str, str]:
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    made = cloud.admin("POST", "keys", {"account": ACCOUNT, "policy": policy})
    return {"AccessKeyId": made["access_key_id"], "SecretAccessKey": made["secret_access_key"]}


def _refusal(call: Any, **values: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        call(**values)
    error = refused.value.response["Error"]
    return error["Code"], error["Message"]


def test_a_key_without_a_policy_may_do_anything(cloud: Cloud, ec2: Any) -> None:
    assert ec2.describe_images()["Images"]
    assert cloud.admin("GET", "evaluations") == []


def test_an_action_without_a_statement_is_refused_with_the_action_and_the_resource(cloud: Cloud) -> None:
    ec2 = cloud.client(keys=_key(cloud, {**EVERYTHING, "Action": "ec2:Describe*"}))
    image = ec2.describe_images()["Images"][0]["ImageId"]
    code, message = _refusal(ec2.run_instances, ImageId=image, MinCount=1, MaxCount=1)
    assert code == "UnauthorizedOperation"
    assert f"not authorized to perform: ec2:RunInstances on resource: arn:aws:ec2:us-east-1::image/{image}" in message
    assert "no identity-based policy allows" in message


def test_an_explicit_deny_is_named(cloud: Cloud) -> None:
    deny = {"Sid": "No", "Effect": "Deny", "Action": "ec2:DescribeImages", "Resource": "*"}
    ec2 = cloud.client(keys=_key(cloud, EVERYTHING, deny))
    assert "with an explicit deny" in _refusal(ec2.describe_images)[1]


def test_a_dry_run_is_held_to_the_policy_first(cloud: Cloud, ec2: Any) -> None:
    instance = running(ec2)
    only = {**EVERYTHING, "Action": "ec2:StopInstances"}
    caller = cloud.client(keys=_key(cloud, only))
    assert _refusal(caller.stop_instances, InstanceIds=[instance], DryRun=True)[0] == "DryRunOperation"
    assert _refusal(caller.terminate_instances, InstanceIds=[instance], DryRun=True)[0] == "UnauthorizedOperation"


def test_tags_of_resources_and_tags_of_the_request_are_different_keys(cloud: Cloud, ec2: Any) -> None:
    group = ec2.create_security_group(GroupName="g", Description="d")["GroupId"]
    makes = {"StringEquals": {"aws:RequestTag/team": "web"}}
    ends = {"StringEquals": {"aws:ResourceTag/team": "web"}}
    tagging = {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}}
    caller = cloud.client(
        keys=_key(
            cloud,
            {**EVERYTHING, "Sid": "M", "Action": "ec2:CreateSecurityGroup", "Condition": makes},
            {**EVERYTHING, "Sid": "E", "Action": "ec2:DeleteSecurityGroup", "Condition": ends},
            {**EVERYTHING, "Sid": "T", "Action": "ec2:CreateTags", "Condition": tagging},
        )
    )
    tags = [{"ResourceType": "security-group", "Tags": [{"Key": "team", "Value": "web"}]}]
    assert _refusal(caller.create_security_group, GroupName="h", Description="d")[0] == "UnauthorizedOperation"
    ours = caller.create_security_group(GroupName="h", Description="d", TagSpecifications=tags)["GroupId"]
    assert _refusal(caller.delete_security_group, GroupId=group)[0] == "UnauthorizedOperation"
    caller.delete_security_group(GroupId=ours)
    assert _refusal(caller.create_tags, Resources=[group], Tags=tags[0]["Tags"])[0] == "UnauthorizedOperation"


def test_a_policy_with_an_unknown_condition_makes_no_key(cloud: Cloud) -> None:
    by_address = {**EVERYTHING, "Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}
    with pytest.raises(urllib.error.HTTPError) as refused:
        _key(cloud, by_address)
    assert "IpAddress" in refused.value.read().decode()


def test_an_action_whose_permissions_are_unknown_is_refused_even_if_everything_is_allowed(
    cloud: Cloud,
) -> None:
    keys = _key(cloud, EVERYTHING)
    ec2, s3, kms = (cloud.client(service, keys=keys) for service in ("ec2", "s3", "kms"))
    for call, values in (
        (ec2.create_vpc, {"CidrBlock": "10.0.0.0/16"}),
        (s3.create_bucket, {"Bucket": "bucket-of-ours"}),
        (kms.create_key, {}),
    ):
        assert "does not know what" in _refusal(call, **values)[1]


def test_a_thing_of_a_kind_that_an_action_never_touches_is_refused_and_no_error_of_the_cloud(cloud: Cloud) -> None:
    ec2 = cloud.client(keys=_key(cloud, EVERYTHING))
    assert _refusal(ec2.terminate_instances, InstanceIds=["ami-1"])[0] == "UnauthorizedOperation"


def test_a_request_with_a_parameter_of_another_action_is_judged_by_its_own(cloud: Cloud) -> None:
    open_one = "arn:aws:ssm:us-east-1:*:parameter/open"
    keys = _key(cloud, {**EVERYTHING, "Action": "ssm:*", "Resource": open_one})
    ssm = cloud.client("ssm", keys=keys)

    def name_an_open_one(params: dict[str, Any], **_: Any) -> None:
        params["body"] = json.dumps({"Name": "open", "Names": ["secret"]}).encode()

    ssm.meta.events.register("before-call.ssm.GetParameters", name_an_open_one)
    try:
        assert _refusal(ssm.get_parameters, Names=["secret"])[0] == "AccessDeniedException"
    finally:
        ssm.meta.events.unregister("before-call.ssm.GetParameters", name_an_open_one)


def test_a_policy_that_cannot_tell_is_refused(cloud: Cloud) -> None:
    deny = {**EVERYTHING, "Effect": "Deny", "Condition": {"StringEquals": {"aws:TagKeys": "secret"}}}
    ec2 = cloud.client(keys=_key(cloud, EVERYTHING, deny))
    tags = [{"Key": "team", "Value": "web"}, {"Key": "secret", "Value": "x"}]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    assert "not understood" in _refusal(ec2.create_tags, Resources=[image], Tags=tags)[1]


def test_the_permissions_of_every_ec2_action_in_generated_policies_are_known() -> None:
    from imagepipe.iam.facts import ACTIONS, ANY

    about_things = {action.partition(":")[2] for action, types in ACTIONS.items() if ANY not in types}
    own = {action for action in about_things if action in OWN}
    reads = {"DescribeImageReferences", "DescribeLaunchTemplateVersions"}  # further actions for what they look at
    assert own | reads == REQUESTS.keys()


def test_the_callers_identity_can_always_be_read(cloud: Cloud) -> None:
    sts = cloud.client("sts", keys=_key(cloud, {**EVERYTHING, "Effect": "Deny"}))
    assert sts.get_caller_identity()["Account"] == ACCOUNT


def test_the_clouds_own_interface_is_not_for_callers_with_a_policy(cloud: Cloud) -> None:
    from imagepipe.errors import LocalCloudError
    from imagepipe.local.client import admin
    from imagepipe.local.client.connect import LocalCloud

    keys = _key(cloud, EVERYTHING)
    as_caller = LocalCloud(cloud.endpoint, keys["AccessKeyId"], keys["SecretAccessKey"], "us-east-1")
    with pytest.raises(LocalCloudError, match="403"):
        admin.places(as_caller)


def test_a_role_is_held_to_its_inline_and_its_attached_policies(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    trust = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    keys = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="it")["Credentials"]
    ec2 = cloud.client(keys=keys)
    assert ec2.describe_key_pairs()["KeyPairs"] == [], "a role without policies is not held to any"
    for number, action in enumerate(("ec2:DescribeImages", "ec2:DescribeVpcs")):
        text = json.dumps({"Version": "2012-10-17", "Statement": [{**EVERYTHING, "Action": action}]})
        if number:
            arn = iam.create_policy(PolicyName="p", PolicyDocument=text)["Policy"]["Arn"]
            iam.attach_role_policy(RoleName="reader", PolicyArn=arn)
        else:
            iam.put_role_policy(RoleName="reader", PolicyName="p", PolicyDocument=text)
    assert ec2.describe_images()["Images"]
    assert ec2.describe_vpcs()["Vpcs"]
    assert "assumed-role/reader/it" in _refusal(ec2.describe_key_pairs)[1]


def test_decisions_are_kept_with_their_context(cloud: Cloud) -> None:
    ec2 = cloud.client(keys=_key(cloud, {**EVERYTHING, "Action": "ec2:ImportKeyPair"}))
    public = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f x"
    ec2.import_key_pair(KeyName="k", PublicKeyMaterial=public)
    _refusal(ec2.delete_key_pair, KeyName="k")
    known = {"aws:PrincipalAccount": [ACCOUNT], "aws:RequestedRegion": ["us-east-1"]}
    arn = f"arn:aws:ec2:us-east-1:{ACCOUNT}:key-pair/k"
    assert cloud.admin("GET", "evaluations") == [
        {"action": "ec2:ImportKeyPair", "resource": arn, "context": known, "allowed": True},
        {"action": "ec2:DeleteKeyPair", "resource": arn, "context": known, "allowed": False},
    ]
    cloud.admin("DELETE", "evaluations")
    assert cloud.admin("GET", "evaluations") == []


def test_a_key_with_a_policy_outlives_the_clouds_process(cloud: Cloud) -> None:
    keys = _key(cloud, {**EVERYTHING, "Action": "ec2:DescribeImages"})
    cloud.restart()
    ec2 = cloud.client(keys=keys)
    assert ec2.describe_images()["Images"]
    assert _refusal(ec2.describe_vpcs)[0] == "UnauthorizedOperation"
