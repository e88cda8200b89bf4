"""Systems Manager: one's own parameters, and Debian's public ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import Cloud, base_image, image, launch, refused

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
