"""Systems Manager: one's own parameters, and Debian's public ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import (
    ACCOUNT,
    Cloud,
    bake,
    base_image,
    caller,
    image,
    instance,
    launch,
    may,
    refused,
    until,
)

DEBIAN = "/aws/service/debian/release/12/latest/amd64"


@pytest.mark.parametrize("region", ["us-east-1", "eu-west-1"])
def test_debians_parameter_is_its_image_in_each_region(cloud: Cloud, region: str) -> None:
    parameter = cloud.client("ssm", region).get_parameter(Name=DEBIAN)["Parameter"]
    ec2 = cloud.client(region=region)
    assert parameter["Value"] == base_image(ec2)
    assert (parameter["Name"], parameter["Type"]) == (DEBIAN, "String")
    assert parameter["ARN"] == f"arn:aws:ssm:{region}::parameter{DEBIAN}"
    launch(ec2, ImageId=parameter["Value"])


def test_an_own_parameter_is_kept_with_its_versions(cloud: Cloud, ec2: Any) -> None:
    ssm = cloud.client("ssm")
    ssm.put_parameter(Name="/images/web", Value="none", Type="String")
    ssm.put_parameter(Name="/images/web", Value=base_image(ec2), Type="String", Overwrite=True)
    cloud.restart()
    kept = cloud.client("ssm").get_parameter(Name="/images/web")["Parameter"]
    assert (kept["Value"], kept["Version"]) == (base_image(cloud.client()), 2)
    assert image(cloud.client(), kept["Value"])["State"] == "available"


def test_public_and_own_parameters_come_together(cloud: Cloud, ec2: Any) -> None:
    ssm = cloud.client("ssm")
    ssm.put_parameter(Name="/own", Value="x", Type="String")
    answer = ssm.get_parameters(Names=["/own", DEBIAN, "/nobodys"])
    assert {one["Name"]: one["Value"] for one in answer["Parameters"]} == {"/own": "x", DEBIAN: base_image(ec2)}
    assert answer["InvalidParameters"] == ["/nobodys"]
    assert ssm.get_parameters(Names=[DEBIAN])["InvalidParameters"] == []


def test_a_parameter_that_is_not_there_is_refused(cloud: Cloud) -> None:
    with refused("ParameterNotFound"):
        cloud.client("ssm").get_parameter(Name="/aws/service/debian/release/99/latest/amd64")


IMAGE: dict[str, Any] = {"Name": "/images/web", "Type": "String", "DataType": "aws:ec2:image"}


def value(cloud: Cloud) -> str | None:
    answer = cloud.client("ssm").get_parameters(Names=["/images/web"])
    return next((str(row["Value"]) for row in answer["Parameters"]), None)


def test_a_parameter_for_an_image_is_launched_by_its_name(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    assert cloud.client("ssm").put_parameter(Value=baked, **IMAGE)["Version"] == 1
    cloud.restart()
    found = cloud.client("ssm").get_parameter(Name="/images/web")["Parameter"]
    assert (found["Value"], found["DataType"], found["Version"]) == (baked, "aws:ec2:image", 1)
    made = launch(cloud.client(), ImageId="resolve:ssm:/images/web")
    assert instance(cloud.client(), made)["ImageId"] == baked


@pytest.mark.parametrize("of", ["unknown", "malformed", "disabled", "deregistered", "elsewhere", "another's"])
def test_an_image_that_is_not_available_is_accepted_and_never_stored(of: str, cloud: Cloud, ec2: Any) -> None:
    ssm = cloud.client("ssm")
    baked = bake(ec2, "web-1")
    wrong = {"unknown": "ami-00000000000000001", "malformed": "nginx"}.get(of, baked)
    if of == "disabled":
        ec2.disable_image(ImageId=baked)
    if of == "deregistered":
        ec2.deregister_image(ImageId=baked)
    if of == "elsewhere":
        ssm = cloud.client("ssm", "eu-west-1")
    if of == "another's":
        ssm = cloud.client("ssm", other=True)
    assert ssm.put_parameter(Value=wrong, **IMAGE)["Version"] == 1
    with refused("ParameterNotFound"):
        ssm.get_parameter(Name="/images/web")


def test_a_failed_update_leaves_the_parameter_as_it_was(cloud: Cloud, ec2: Any) -> None:
    ssm = cloud.client("ssm")
    baked = bake(ec2, "web-1")
    ssm.put_parameter(Value=baked, **IMAGE)
    assert ssm.put_parameter(Value="ami-00000000000000001", Overwrite=True, **IMAGE)["Version"] == 2
    assert ssm.get_parameter(Name="/images/web")["Parameter"]["Version"] == 1
    assert value(cloud) == baked


def test_a_valid_image_may_take_a_while_to_appear(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    cloud.admin("POST", "delays", {"parameter": 60})
    cloud.client("ssm").put_parameter(Value=baked, **IMAGE)
    assert value(cloud) is None
    cloud.admin("POST", "delays", {"parameter": 0})
    until(lambda: value(cloud) == baked)


def test_an_existing_parameter_is_changed_only_with_overwrite_and_never_tagged_by_it(cloud: Cloud, ec2: Any) -> None:
    ssm = cloud.client("ssm")
    first, second = bake(ec2, "web-1"), bake(ec2, "web-2")
    ssm.put_parameter(Value=first, Tags=[{"Key": "team", "Value": "images"}], **IMAGE)
    for image_id in (second, "ami-00000000000000001"):
        with refused("ParameterAlreadyExists"):
            ssm.put_parameter(Value=image_id, **IMAGE)
    with refused("ValidationException"):
        ssm.put_parameter(Value=second, Overwrite=True, Tags=[{"Key": "a", "Value": "b"}], **IMAGE)
    assert ssm.put_parameter(Value=second, Overwrite=True, **IMAGE)["Version"] == 2
    history = ssm.get_parameter_history(Name="/images/web")["Parameters"]
    assert [(row["Version"], row["Value"]) for row in history] == [(1, first), (2, second)]
    assert ssm.get_parameter(Name="/images/web:1")["Parameter"]["Value"] == first
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/images/web")["TagList"]
    assert tags == [{"Key": "team", "Value": "images"}]


def test_an_image_parameter_is_a_string(cloud: Cloud, ec2: Any) -> None:
    with refused("ValidationException", match="String"):
        cloud.client("ssm").put_parameter(Value=bake(ec2, "web-1"), **{**IMAGE, "Type": "StringList"})


def test_parameters_are_listed_by_path_type_and_tag_in_pages(cloud: Cloud, ec2: Any) -> None:
    ssm = cloud.client("ssm")
    baked = bake(ec2, "web-1")
    names = [f"/images/web-{number:02}" for number in range(12)]
    for name in names:
        ssm.put_parameter(**{**IMAGE, "Name": name, "Value": baked})
    ssm.put_parameter(Name="/other/x", Value="x", Type="String")
    ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=names[3], Tags=[{"Key": "spec", "Value": "web"}])
    cloud.restart()
    ssm = cloud.client("ssm")

    def listed(*filters: dict[str, Any]) -> list[str]:
        pages = ssm.get_paginator("describe_parameters").paginate(ParameterFilters=list(filters))
        return sorted(row["Name"] for page in pages for row in page["Parameters"])

    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path="/images")
    assert sorted(row["Name"] for page in pages for row in page["Parameters"]) == names
    assert listed({"Key": "Path", "Option": "OneLevel", "Values": ["/images"]}) == names
    assert listed({"Key": "DataType", "Values": ["aws:ec2:image"]}) == names
    assert listed({"Key": "tag:spec", "Values": ["web"]}) == [names[3]]
    of_images = [{"Key": "DataType", "Values": ["aws:ec2:image"]}]
    small = ssm.get_paginator("describe_parameters").paginate(
        ParameterFilters=of_images, PaginationConfig={"PageSize": 5}
    )
    assert [len(page["Parameters"]) for page in small] == [5, 5, 2]
    with refused("InvalidFilterOption"):
        listed({"Key": "DataType", "Option": "BeginsWith", "Values": ["aws:"]})
    assert listed({"Key": "Name", "Option": "BeginsWith", "Values": ["/other"]}) == ["/other/x"]
    ssm.delete_parameter(Name=names[0])
    assert listed({"Key": "DataType", "Values": ["aws:ec2:image"]}) == names[1:]


@pytest.mark.parametrize(
    ("action", "ask"),
    [
        ("ssm:PutParameter", lambda ssm: ssm.put_parameter(Name="/images/a", Value="x", Type="String")),
        ("ssm:DeleteParameter", lambda ssm: ssm.delete_parameter(Name="/images/web")),
        ("ssm:GetParametersByPath", lambda ssm: ssm.get_parameters_by_path(Path="/images/")),
        ("ssm:GetParameterHistory", lambda ssm: ssm.get_parameter_history(Name="/images/web")),
        (
            "ssm:AddTagsToResource",
            lambda ssm: ssm.add_tags_to_resource(
                ResourceType="Parameter", ResourceId="/images/web", Tags=[{"Key": "a", "Value": "b"}]
            ),
        ),
        (
            "ssm:ListTagsForResource",
            lambda ssm: ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/images/web"),
        ),
    ],
)
def test_each_action_needs_its_permission_on_the_parameter(action: str, ask: Any, cloud: Cloud) -> None:
    cloud.client("ssm").put_parameter(Name="/images/web", Value="x", Type="String")
    arn = f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/images/*"
    with refused("AccessDeniedException", match=f"{action} on resource: .*:parameter/images/"):
        ask(caller(cloud, may("ssm:GetParameter"), service="ssm"))
    ask(caller(cloud, may(action, arn), service="ssm"))


def test_an_image_parameter_needs_the_permission_to_describe_images(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    with refused("AccessDeniedException", match="ec2:DescribeImages"):
        caller(cloud, may("ssm:PutParameter"), service="ssm").put_parameter(Value=baked, **IMAGE)
    allowed = caller(cloud, may("ssm:PutParameter"), may("ec2:DescribeImages"), service="ssm")
    allowed.put_parameter(Value=baked, **IMAGE)
