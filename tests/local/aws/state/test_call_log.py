"""The cloud counts what it is asked, so that the cost of a client can be measured."""

from __future__ import annotations

from tests.local.aws.harness import Cloud, refused


def test_calls_are_counted_by_action_until_they_are_cleared(cloud: Cloud) -> None:
    ec2 = cloud.client()
    cloud.admin("DELETE", "calls")
    ec2.describe_images(Owners=["self"])
    ec2.describe_images(Owners=["self"])
    cloud.client("sts").get_caller_identity()
    assert cloud.admin("GET", "calls") == {"ec2:DescribeImages": 2, "sts:GetCallerIdentity": 1}
    cloud.admin("DELETE", "calls")
    assert cloud.admin("GET", "calls") == {}, "the cloud's own interface does not count"


def test_a_call_that_is_refused_is_counted_too(cloud: Cloud) -> None:
    cloud.admin("DELETE", "calls")
    with refused("InvalidInstanceID.NotFound"):
        cloud.client().stop_instances(InstanceIds=["i-0123456789abcdef0"])
    assert cloud.admin("GET", "calls") == {"ec2:StopInstances": 1}
