"""Image Builder's recipes, as far as they use images."""

from __future__ import annotations

from typing import Any

import pytest

from tests.local.aws.harness import ACCOUNT, Cloud, base_image, caller, may, refused

ROOT = f"arn:aws:imagebuilder:us-east-1:{ACCOUNT}:"


def component(client: Any) -> str:
    made = client.create_component(
        name="Web Server",
        semanticVersion="1.0.0",
        platform="Linux",
        data="name: web\nphases: []\n",
        clientToken="c" * 36,
    )
    return str(made["componentBuildVersionArn"])


def recipe(cloud: Cloud, client: Any, version: str = "1.0.0", **params: Any) -> str:
    given = {
        "name": "web",
        "semanticVersion": version,
        "parentImage": base_image(cloud.client()),
        "components": [{"componentArn": component(client)}],
        **params,
    }
    return str(client.create_image_recipe(**given)["imageRecipeArn"])


def test_a_recipe_is_kept_listed_and_deleted(cloud: Cloud) -> None:
    client = cloud.client("imagebuilder")
    assert component(client) == f"{ROOT}component/web-server/1.0.0/1"
    arn = recipe(cloud, client, description="nginx", tags={"team": "images"})
    assert arn == f"{ROOT}image-recipe/web/1.0.0"
    cloud.restart()
    client = cloud.client("imagebuilder")
    found = client.get_image_recipe(imageRecipeArn=arn)["imageRecipe"]
    assert (found["name"], found["version"], found["description"]) == ("web", "1.0.0", "nginx")
    assert found["parentImage"] == base_image(cloud.client())
    assert found["tags"] == {"team": "images"}
    recipe(cloud, client, "1.0.1")
    pages = client.get_paginator("list_image_recipes").paginate(PaginationConfig={"PageSize": 1})
    listed = [row["arn"] for page in pages for row in page["imageRecipeSummaryList"]]
    assert listed == [arn, f"{ROOT}image-recipe/web/1.0.1"]
    assert client.delete_image_recipe(imageRecipeArn=arn)["imageRecipeArn"] == arn
    with refused("InvalidRequestException", match="does not exist"):
        client.get_image_recipe(imageRecipeArn=arn)


def test_recipes_are_found_by_their_parent_image_and_by_their_account(cloud: Cloud) -> None:
    client = cloud.client("imagebuilder")
    recipe(cloud, client)
    arn = recipe(cloud, client, "2.0.0", parentImage="ami-00000000000000001")
    asked = [{"name": "parentImage", "values": ["ami-00000000000000001"]}]
    assert [row["arn"] for row in client.list_image_recipes(filters=asked)["imageRecipeSummaryList"]] == [arn]
    assert client.list_image_recipes(owner="Amazon")["imageRecipeSummaryList"] == []
    assert cloud.client("imagebuilder", other=True).list_image_recipes()["imageRecipeSummaryList"] == []
    with refused("InvalidRequestException", match="colour"):
        client.list_image_recipes(filters=[{"name": "colour", "values": ["red"]}])


def test_a_container_recipe_names_the_image_of_its_instance(cloud: Cloud) -> None:
    client = cloud.client("imagebuilder")
    arn = client.create_container_recipe(
        name="web",
        semanticVersion="1.0.0",
        containerType="DOCKER",
        parentImage="amazonlinux:latest",
        components=[{"componentArn": component(client)}],
        instanceConfiguration={"image": "ami-00000000000000001"},
        targetRepository={"service": "ECR", "repositoryName": "web"},
    )["containerRecipeArn"]
    [row] = client.list_container_recipes()["containerRecipeSummaryList"]
    assert (row["arn"], row["instanceImage"]) == (arn, "ami-00000000000000001")
    found = client.get_container_recipe(containerRecipeArn=arn)["containerRecipe"]
    assert (found["parentImage"], found["containerType"]) == ("amazonlinux:latest", "DOCKER")
    client.delete_container_recipe(containerRecipeArn=arn)
    assert client.list_container_recipes()["containerRecipeSummaryList"] == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"semanticVersion": "1.x.0"}, "InvalidVersionNumberException"),
        ({"description": "another"}, "ResourceAlreadyExistsException"),
        ({"dryRun": True, "semanticVersion": "3.0.0"}, "DryRunOperationException"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(given: dict[str, Any], code: str, cloud: Cloud) -> None:
    client = cloud.client("imagebuilder")
    recipe(cloud, client)
    with refused(code):
        recipe(cloud, client, **{"version": given.get("semanticVersion", "1.0.0"), **given})
    assert len(client.list_image_recipes()["imageRecipeSummaryList"]) == 1


def test_reading_and_deleting_are_permissions_of_their_own(cloud: Cloud) -> None:
    arn = recipe(cloud, cloud.client("imagebuilder"))
    limited = caller(cloud, may("imagebuilder:GetImageRecipe", arn), service="imagebuilder")
    limited.get_image_recipe(imageRecipeArn=arn)
    with refused("AccessDeniedException", match="imagebuilder:DeleteImageRecipe"):
        limited.delete_image_recipe(imageRecipeArn=arn)
    with refused("AccessDeniedException", match="imagebuilder:ListImageRecipes"):
        limited.list_image_recipes()
