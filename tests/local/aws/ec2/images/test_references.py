"""DescribeImageReferences finds the caller's own resources that use an image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.local.aws.harness import (
    ACCOUNT,
    Cloud,
    bake,
    caller,
    launch,
    may,
    refused,
    running,
    share,
    state,
    stopped,
    until,
)

COMPONENT = f"arn:aws:imagebuilder:us-east-1:{ACCOUNT}:component/web/1.0.0/1"


def found(ec2: Any, *image_ids: str, **params: Any) -> list[tuple[str, str, str]]:
    asked = params or {"IncludeAllResourceTypes": True}
    rows = ec2.describe_image_references(ImageIds=list(image_ids), **asked)["ImageReferences"]
    return [(row["ImageId"], row["ResourceType"], row["Arn"]) for row in rows]


def of_type(kind: str, **options: list[str]) -> dict[str, Any]:
    given = [{"OptionName": name.replace("_", "-"), "OptionValues": values} for name, values in options.items()]
    return {"ResourceTypes": [{"ResourceType": kind, **({"ResourceTypeOptions": given} if given else {})}]}


def by_instance(cloud: Cloud, image_id: str) -> str:
    return f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/{launch(cloud.client(), ImageId=image_id)}"


def by_template(cloud: Cloud, image_id: str) -> str:
    data = {"LaunchTemplateName": "web", "LaunchTemplateData": {"ImageId": image_id}}
    made = cloud.client().create_launch_template(**data)["LaunchTemplate"]["LaunchTemplateId"]
    return f"arn:aws:ec2:us-east-1:{ACCOUNT}:launch-template/{made}"


def by_parameter(cloud: Cloud, image_id: str) -> str:
    cloud.client("ssm").put_parameter(Name="/images/web", Value=image_id, Type="String", DataType="aws:ec2:image")
    return f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/images/web"


def by_image_recipe(cloud: Cloud, image_id: str) -> str:
    made = cloud.client("imagebuilder").create_image_recipe(
        name="web", semanticVersion="1.0.0", parentImage=image_id, components=[{"componentArn": COMPONENT}]
    )
    return str(made["imageRecipeArn"])


def by_container_recipe(cloud: Cloud, image_id: str) -> str:
    made = cloud.client("imagebuilder").create_container_recipe(
        name="web",
        semanticVersion="1.0.0",
        containerType="DOCKER",
        parentImage="amazonlinux:latest",
        components=[{"componentArn": COMPONENT}],
        instanceConfiguration={"image": image_id},
        targetRepository={"service": "ECR", "repositoryName": "web"},
    )
    return str(made["containerRecipeArn"])


USES: dict[str, Callable[[Cloud, str], str]] = {
    "ec2:Instance": by_instance,
    "ec2:LaunchTemplate": by_template,
    "ssm:Parameter": by_parameter,
    "imagebuilder:ImageRecipe": by_image_recipe,
    "imagebuilder:ContainerRecipe": by_container_recipe,
}


@pytest.mark.parametrize("kind", USES)
def test_each_kind_of_use_is_found_by_its_type_and_by_no_other(kind: str, cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    arn = USES[kind](cloud, baked)
    cloud.restart()
    ec2 = cloud.client()
    assert found(ec2, baked) == [(baked, kind, arn)]
    for other in USES:
        assert found(ec2, baked, **of_type(other)) == ([(baked, kind, arn)] if other == kind else [])


def test_references_come_by_image_and_type_also_of_images_that_are_gone(cloud: Cloud, ec2: Any) -> None:
    first, second = bake(ec2, "web-1"), bake(ec2, "web-2")
    expected = [(second, kind, use(cloud, second)) for kind, use in USES.items()]
    expected.append((first, "ec2:Instance", by_instance(cloud, first)))
    ec2.deregister_image(ImageId=second)
    assert found(ec2, second, first) == expected
    pages = ec2.get_paginator("describe_image_references").paginate(
        ImageIds=[second, first], IncludeAllResourceTypes=True, PaginationConfig={"PageSize": 5}
    )
    assert [[row["ImageId"] for row in page["ImageReferences"]] for page in pages] == [[second] * 5, [first]]


def test_instances_are_found_in_every_state_unless_the_request_names_some(ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    first, second = running(ec2, ImageId=baked), stopped(ec2, ImageId=baked)

    def ids(**params: Any) -> set[str]:
        return {arn.rpartition("/")[2] for _, _, arn in found(ec2, baked, **params)}

    assert ids() == {first, second}
    assert ids(**of_type("ec2:Instance", state_name=["stopped"])) == {second}
    assert ids(**of_type("ec2:Instance", state_name=["stopped", "running"])) == {first, second}
    ec2.terminate_instances(InstanceIds=[first])
    until(lambda: state(ec2, first) == "terminated")
    assert ids(**of_type("ec2:Instance", state_name=["running", "stopped"])) == {second}
    assert ids() == {first, second}
    options = {**of_type("ec2:Instance", state_name=["stopped"]), "IncludeAllResourceTypes": True}
    assert ids(**options) == {second}


def test_a_template_is_found_in_its_ten_newest_versions_unless_the_request_says_more(ec2: Any) -> None:
    old, new = bake(ec2, "web-1"), bake(ec2, "web-2")
    ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData={"ImageId": old})
    for _ in range(9):
        ec2.create_launch_template_version(LaunchTemplateName="web", LaunchTemplateData={"ImageId": new})
    assert len(found(ec2, old)) == 1
    assert len(found(ec2, new)) == 1  # nine versions of one template
    ec2.create_launch_template_version(LaunchTemplateName="web", LaunchTemplateData={"ImageId": new})
    assert found(ec2, old) == []
    assert len(found(ec2, old, **of_type("ec2:LaunchTemplate", version_depth=["11"]))) == 1
    assert len(found(ec2, old, **of_type("ec2:LaunchTemplate", version_depth=["10000"]))) == 1


def test_a_parameter_counts_by_its_type_and_its_newest_version(cloud: Cloud, ec2: Any) -> None:
    old, new = bake(ec2, "web-1"), bake(ec2, "web-2")
    ssm = cloud.client("ssm")
    ssm.put_parameter(Name="plain", Value=old, Type="String")
    by_parameter(cloud, old)
    assert [arn.rpartition("/")[2] for _, _, arn in found(ec2, old)] == ["web"]
    ssm.put_parameter(Name="/images/web", Value=new, Type="String", DataType="aws:ec2:image", Overwrite=True)
    assert found(ec2, old) == []
    assert len(found(ec2, new)) == 1


def test_a_template_that_names_a_parameter_is_found_by_the_parameter_alone(cloud: Cloud, ec2: Any) -> None:
    baked = bake(ec2, "web-1")
    by_parameter(cloud, baked)
    by_template(cloud, "resolve:ssm:/images/web")
    assert [kind for _, kind, _ in found(ec2, baked)] == ["ssm:Parameter"]


def test_an_account_finds_its_own_resources_only(cloud: Cloud, ec2: Any) -> None:
    baked, other = bake(ec2, "web-1"), cloud.client(other=True)
    share(ec2, baked)
    launch(other, ImageId=baked)
    assert found(ec2, baked) == []
    assert len(found(other, baked)) == 1
    assert found(cloud.client(region="us-west-2"), baked) == []


@pytest.mark.parametrize(
    ("params", "needed"),
    [
        (of_type("ec2:Instance"), ["ec2:DescribeInstances"]),
        (of_type("ec2:LaunchTemplate"), ["ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions"]),
        (of_type("ssm:Parameter"), ["ssm:DescribeParameters", "ssm:GetParameters"]),
        (of_type("imagebuilder:ImageRecipe"), ["imagebuilder:ListImageRecipes"]),
        (
            of_type("imagebuilder:ContainerRecipe"),
            ["imagebuilder:ListContainerRecipes", "imagebuilder:GetContainerRecipe"],
        ),
    ],
)
def test_a_check_needs_the_permission_to_read_what_it_looks_at(
    params: dict[str, Any], needed: list[str], cloud: Cloud
) -> None:
    baked = bake(cloud.client(), "web-1")
    everything = ["ec2:DescribeImageReferences", *needed]
    assert found(caller(cloud, *map(may, everything)), baked, **params) == []
    for missing in everything:
        limited = caller(cloud, *(may(action) for action in everything if action != missing))
        with refused("UnauthorizedOperation", match=f"to perform: {missing} "):
            found(limited, baked, **params)
