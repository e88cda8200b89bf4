"""Every filter and every page that EC2's model documents, for each Describe action of the local cloud."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from botocore import xform_name

from imagepipe.local.aws.ec2 import absent
from imagepipe.local.aws.ec2.actions import MOTO, OWN
from imagepipe.local.aws.protocol.documented_filters import ALIASES, UNSUPPORTED, documented, item_path, path
from imagepipe.local.aws.protocol.times import milliseconds
from tests.local.aws.harness import (
    SESSION,
    Cloud,
    available,
    launch,
    refused,
    register,
    running,
    share,
    snapshot_of,
    until,
)

MODEL = SESSION.client("ec2", "us-east-1").meta.service_model
ACTIONS = sorted(
    action for action in (OWN.keys() | MOTO) - absent.ACTIONS if action.startswith("Describe") and documented(action)
)
GIVEN = {
    "DescribeInstances": {
        "network-interface.attachment.instance-id",
        "network-interface.attachment.instance-owner-id",
        "network-interface.availability-zone",
        "network-interface.outpost-arn",
        "network-interface.requester-id",
        "network-interface.requester-managed",
        "network-interface.tag-key",
        "network-interface.tag-value",
        "owner-id",
        "requester-id",
        "reservation-id",
    },
    "DescribeLaunchTemplateVersions": {
        "ebs-optimized",
        "http-endpoint",
        "http-tokens",
        "iam-instance-profile",
        "image-id",
        "instance-type",
        "is-default-version",
        "kernel-id",
        "ram-disk-id",
    },
    "DescribeTags": {"resource-id", "resource-type", "key", "value"},
}
"""Filters whose values the described items do not have."""


@dataclass(frozen=True)
class World:
    """A cloud that has one of each kind of resource, used by the tests of this file without changing it."""

    cloud: Cloud
    instance: str
    image: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    cloud = Cloud(root=tmp_path_factory.mktemp("filters"))
    cloud.start()
    try:
        yield furnish(cloud)
    finally:
        cloud.stop()


def furnish(cloud: Cloud) -> World:
    """Make one of each kind of resource."""
    ec2 = cloud.client()
    key = ec2.create_key_pair(KeyName="key", KeyType="ed25519")["KeyName"]
    group = ec2.create_security_group(GroupName="web", Description="web")["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
            {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]},
        ],
    )
    kinds = ("instance", "volume", "network-interface")
    tags = [{"ResourceType": kind, "Tags": [{"Key": "kind", "Value": kind}]} for kind in kinds]
    spot = {"ResourceType": "spot-instances-request", "Tags": [{"Key": "kind", "Value": "spot"}]}
    instance = running(ec2, KeyName=key, SecurityGroupIds=[group], TagSpecifications=tags)
    running(ec2, InstanceMarketOptions={"MarketType": "spot"}, TagSpecifications=[spot])
    snapshot = snapshot_of(ec2, instance)
    image = available(ec2, register(ec2, snapshot, "web-1", Description="web"))
    ec2.create_tags(Resources=[image], Tags=[{"Key": "kind", "Value": "image"}])
    ec2.create_placement_group(GroupName="near", Strategy="cluster")
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": image})
    share(ec2, image)
    launch(cloud.client(other=True), ImageId=image)
    report = ec2.create_image_usage_report(ImageId=image, ResourceTypes=[{"ResourceType": "ec2:Instance"}])["ReportId"]
    until(lambda: ec2.describe_image_usage_report_entries(ReportIds=[report])["ImageUsageReportEntries"])
    return World(cloud, instance, image)


def call(ec2: Any, action: str, **given: Any) -> list[Any]:
    """The described items of an answer."""
    items: list[Any] = [getattr(ec2, xform_name(action))(**needed(action), **given)]
    for step in item_path(action):
        items = [each for item in items for each in item.get(step, [])]
    return items


def needed(action: str) -> dict[str, Any]:
    """The parameters without which the action describes nothing."""
    if action == "DescribeImageReferences":
        return {"ImageIds": ["ami-00000000000000001"], "IncludeAllResourceTypes": True}
    return {"Versions": ["$Latest"]} if action == "DescribeLaunchTemplateVersions" else {}


def values(item: Any, steps: tuple[str, ...]) -> list[Any]:
    if isinstance(item, list):
        return [value for each in item for value in values(each, steps)]
    if not steps:
        return [item]
    return values(item[steps[0]], steps[1:]) if isinstance(item, Mapping) and steps[0] in item else []


def text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return milliseconds(value) if isinstance(value, datetime) else str(value)


@pytest.mark.parametrize("action", ACTIONS)
def test_each_documented_filter_finds_the_items_that_have_its_value(action: str, world: World) -> None:
    ec2 = world.cloud.client()
    everything = call(ec2, action)
    for name in sorted(documented(action) - UNSUPPORTED.get(action, set()) - GIVEN.get(action, set())):
        steps = path(action, name)
        assert steps is not None, name
        by_item = [[text(value) for value in values(item, steps)] for item in everything]
        [(wanted, _)] = Counter(value for found in by_item for value in found).most_common()[-1:] or [("of-no-item", 0)]
        expected = [item for item, found in zip(everything, by_item, strict=True) if wanted in found]
        page = {"MaxResults": 5} if len(expected) > 50 else {}  # hundreds of instance types take long to send
        found = call(ec2, action, Filters=[{"Name": name, "Values": [wanted]}], **page)
        assert found == (expected[:5] if page else expected), (name, wanted)


@pytest.mark.parametrize("action", ACTIONS)
def test_each_documented_filter_with_a_value_of_no_item_finds_nothing(action: str, world: World) -> None:
    ec2 = world.cloud.client()
    for name in sorted(documented(action) - UNSUPPORTED.get(action, set())):
        assert call(ec2, action, Filters=[{"Name": name, "Values": ["of-no-item"]}]) == [], name


@pytest.mark.parametrize(
    ("action", "name"), [(action, name) for action, names in UNSUPPORTED.items() for name in sorted(names)]
)
def test_a_documented_filter_that_is_not_supported_says_so(action: str, name: str, world: World) -> None:
    with refused("InvalidParameterValue", match="does not support the filter"):
        call(world.cloud.client(), action, Filters=[{"Name": name, "Values": ["x"]}])


@pytest.mark.parametrize("action", sorted(action for action in absent.ACTIONS if documented(action)))
def test_a_list_of_nothing_takes_the_documented_filters(action: str, world: World) -> None:
    ec2 = world.cloud.client()
    for name in (*documented(action), "tag:team", "tag-key"):
        assert call(ec2, action, **{filters_of(ec2, action): [{"Name": name, "Values": ["x"]}]}) == []
    with refused("InvalidParameterValue", match="The filter 'shoe-size' is invalid"):
        call(ec2, action, **{filters_of(ec2, action): [{"Name": "shoe-size", "Values": ["x"]}]})


def filters_of(ec2: Any, action: str) -> str:
    """The parameter for filters, which two actions call Filter."""
    members = ec2.meta.service_model.operation_model(action).input_shape.members
    return "Filters" if "Filters" in members else "Filter"


@pytest.mark.parametrize(
    ("action", "alias", "name"),
    [(action, alias, name) for action, names in ALIASES.items() for alias, name in names.items()],
)
def test_a_filter_has_its_other_name_too(action: str, alias: str, name: str, world: World) -> None:
    ec2 = world.cloud.client()
    steps = path(action, name)
    assert steps is not None
    wanted = text(values(call(ec2, action)[0], steps)[0])
    found = call(ec2, action, Filters=[{"Name": alias, "Values": [wanted]}])
    assert found
    assert found == call(ec2, action, Filters=[{"Name": name, "Values": [wanted]}])


@pytest.mark.parametrize("action", ACTIONS)
def test_an_undocumented_filter_is_invalid(action: str, world: World) -> None:
    with refused("InvalidParameterValue", match="The filter 'shoe-size' is invalid"):
        call(world.cloud.client(), action, Filters=[{"Name": "shoe-size", "Values": ["x"]}])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network-interface.tag-value", "network-interface"),
        ("network-interface.tag-key", "kind"),
        ("instance.group-name", "web"),
        ("block-device-mapping.delete-on-termination", "true"),
        ("monitoring-state", "disabled"),
        ("network-interface.addresses.primary", "true"),
        ("hibernation-options.configured", "false"),
    ],
)
def test_instances_are_found_by_values_of_their_parts(name: str, value: str, world: World) -> None:
    found = call(world.cloud.client(), "DescribeInstances", Filters=[{"Name": name, "Values": [value]}])
    assert world.instance in [item["InstanceId"] for item in found]


def test_the_tags_of_a_spot_launch_are_the_requests(world: World) -> None:
    found = call(
        world.cloud.client(), "DescribeSpotInstanceRequests", Filters=[{"Name": "tag:kind", "Values": ["spot"]}]
    )
    assert [item["Tags"] for item in found] == [[{"Key": "kind", "Value": "spot"}]]


@pytest.mark.parametrize(
    "action",
    [
        action
        for action in sorted((*OWN, *MOTO))
        if action.startswith("Describe")
        and {"MaxResults", "NextToken"} <= set(MODEL.operation_model(action).input_shape.members)
    ],
)
def test_pages_have_the_requested_size_and_all_items_together(action: str, world: World) -> None:
    ec2 = world.cloud.client()
    shape = ec2.meta.service_model.operation_model(action).input_shape.members["MaxResults"]
    size = max(5, shape.metadata.get("min", 5))
    everything = call(ec2, action)
    token: dict[str, str] = {}
    seen: list[Any] = []
    for _ in itertools.count():
        answer = getattr(ec2, xform_name(action))(MaxResults=size, **needed(action), **token)
        items: list[Any] = [answer]
        for step in item_path(action):
            items = [each for item in items for each in item.get(step, [])]
        assert len(items) <= size
        seen += items
        if not answer.get("NextToken") or len(seen) > 30:
            break
        token = {"NextToken": answer["NextToken"]}
    assert seen == everything[: len(seen)]
    assert len(seen) == len(everything) or len(seen) > 30


@pytest.mark.parametrize(
    "names",
    [
        {"GroupName.2": "web"},
        {"Filter.0.Name": "group-name", "Filter.0.Value.1": "web", "Filter.2.Name": "vpc-id", "Filter.2.Value.1": "x"},
        {"Filter.1.Name": "group-name", "Filter.1.Value.2": "web"},
        {"GroupName.1": "web", "GroupName.3": "default"},
    ],
)
def test_a_list_with_gaps_is_refused(names: dict[str, str], world: World) -> None:
    from urllib.parse import urlencode

    from tests.local.daemon.test_endpoint import ask, signed

    body = urlencode({"Action": "DescribeSecurityGroups", "Version": "2016-11-15", **names}).encode()
    status, _, answer = ask(world.cloud, "POST", "/", body, **signed(world.cloud, "ec2", "POST", "/", body))
    assert (status, b"numbered from 1 without gaps" in answer) == (400, True), answer
