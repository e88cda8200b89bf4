"""Image Builder's components and recipes, which are kept and described. Nothing is built from them.

They exist because a recipe uses its parent image: the image must not be retired.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from imagepipe.clock import iso
from imagepipe.local.aws.authentication.signature import Identity
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.protocol import filters, rest_json
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.state.records import ImageBuilderResource
from imagepipe.partitions import partition

VERSION = re.compile(r"\d+\.\d+\.\d+")
COMPONENT, IMAGE_RECIPE, CONTAINER_RECIPE = "component", "image-recipe", "container-recipe"
FILTERS = {"name": "name", "parentImage": "parent_image"}
"""Filters of lists, with the record's field."""
Params = Mapping[str, Any]
Result = Mapping[str, Any]


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer one of the actions on components and recipes; None for any other request."""
    run = ACTIONS.get(action)
    if run is None:
        return None
    params = rest_json.params("imagebuilder", context.request)
    with backend.database.change():
        result = run(backend, context.identity, params)
        if params.get("dryRun"):
            text = "Request would have succeeded, but dryRun flag is set."
            raise AwsError("DryRunOperationException", text, status=412)
    return rest_json.answer("imagebuilder", action, {"requestId": context.request_id, **result})


def create_component(backend: Backend, identity: Identity, params: Params) -> Result:
    made = _create(backend, identity, params, COMPONENT, suffix="/1")
    return {"clientToken": params["clientToken"], "componentBuildVersionArn": made.id}


def delete_component(backend: Backend, identity: Identity, params: Params) -> Result:
    found = _find(backend, identity, COMPONENT, params["componentBuildVersionArn"])
    backend.database.remove(found)
    return {"componentBuildVersionArn": found.id}


def create_image_recipe(backend: Backend, identity: Identity, params: Params) -> Result:
    made = _create(backend, identity, params, IMAGE_RECIPE, parent_image=params["parentImage"])
    return {"clientToken": params["clientToken"], "imageRecipeArn": made.id}


def get_image_recipe(backend: Backend, identity: Identity, params: Params) -> Result:
    found = _find(backend, identity, IMAGE_RECIPE, params["imageRecipeArn"])
    return {"imageRecipe": {**_to_api(found), "type": "AMI", "version": found.version}}


def list_image_recipes(backend: Backend, identity: Identity, params: Params) -> Result:
    rows, token = _list(backend, identity, params, IMAGE_RECIPE)
    names = ("arn", "name", "platform", "owner", "parentImage", "dateCreated", "tags")
    return {"imageRecipeSummaryList": [_only(_to_api(row), *names) for row in rows], "nextToken": token}


def delete_image_recipe(backend: Backend, identity: Identity, params: Params) -> Result:
    found = _find(backend, identity, IMAGE_RECIPE, params["imageRecipeArn"])
    backend.database.remove(found)
    return {"imageRecipeArn": found.id}


def create_container_recipe(backend: Backend, identity: Identity, params: Params) -> Result:
    """Keep a container recipe; the image that it uses is that of the instance that builds the container."""
    image = params.get("instanceConfiguration", {}).get("image", "")
    made = _create(backend, identity, params, CONTAINER_RECIPE, parent_image=image)
    return {"clientToken": params["clientToken"], "containerRecipeArn": made.id}


def get_container_recipe(backend: Backend, identity: Identity, params: Params) -> Result:
    found = _find(backend, identity, CONTAINER_RECIPE, params["containerRecipeArn"])
    return {"containerRecipe": {**_to_api(found), "version": found.version}}


def list_container_recipes(backend: Backend, identity: Identity, params: Params) -> Result:
    rows, token = _list(backend, identity, params, CONTAINER_RECIPE)
    names = ("arn", "containerType", "name", "platform", "owner", "parentImage", "dateCreated", "tags")
    summaries = [{**_only(_to_api(row), *names), "instanceImage": row.parent_image} for row in rows]
    return {"containerRecipeSummaryList": summaries, "nextToken": token}


def delete_container_recipe(backend: Backend, identity: Identity, params: Params) -> Result:
    found = _find(backend, identity, CONTAINER_RECIPE, params["containerRecipeArn"])
    backend.database.remove(found)
    return {"containerRecipeArn": found.id}


ACTIONS: Mapping[str, Callable[[Backend, Identity, Params], Result]] = {
    "CreateComponent": create_component,
    "DeleteComponent": delete_component,
    "CreateImageRecipe": create_image_recipe,
    "GetImageRecipe": get_image_recipe,
    "ListImageRecipes": list_image_recipes,
    "DeleteImageRecipe": delete_image_recipe,
    "CreateContainerRecipe": create_container_recipe,
    "GetContainerRecipe": get_container_recipe,
    "ListContainerRecipes": list_container_recipes,
    "DeleteContainerRecipe": delete_container_recipe,
}


def resource_arn(account: str, region: str, kind: str, name: str, version: str) -> str:
    """Return an ARN, in which the name is in lower case and has dashes for spaces."""
    plain = name.lower().replace(" ", "-")
    return f"arn:{partition(region)}:imagebuilder:{region}:{account}:{kind}/{plain}/{version}"


def _create(
    backend: Backend, identity: Identity, params: Params, kind: str, *, parent_image: str = "", suffix: str = ""
) -> ImageBuilderResource:
    version = str(params["semanticVersion"])
    if not VERSION.fullmatch(version):
        raise AwsError("InvalidVersionNumberException", f"The version {version} is not MAJOR.MINOR.PATCH")
    arn = resource_arn(identity.account, identity.region, kind, params["name"], version) + suffix
    given = json.dumps(params, sort_keys=True)
    present = backend.database.image_builder.get(arn)
    if present is not None and present.data != given:
        raise AwsError("ResourceAlreadyExistsException", f"The resource {arn} already exists")
    if present is not None:  # the same request again, with the same client token
        return present
    made = ImageBuilderResource(
        id=arn,
        account=identity.account,
        region=identity.region,
        tags=params.get("tags", {}),
        kind=kind,
        name=params["name"],
        version=version,
        parent_image=parent_image,
        created=backend.clock.now(),
        data=given,
    )
    backend.database.put(made)
    return made


def _find(backend: Backend, identity: Identity, kind: str, arn: str) -> ImageBuilderResource:
    found = backend.database.image_builder.get(arn)
    if found is None or (found.kind, found.account, found.region) != (kind, identity.account, identity.region):
        # Image Builder has no code of its own for a missing resource in these operations.
        raise AwsError("InvalidRequestException", f"The resource {arn} does not exist")
    return found


def _list(
    backend: Backend, identity: Identity, params: Params, kind: str
) -> tuple[list[ImageBuilderResource], str | None]:
    """Return a page of the caller's own resources; other owners have none here. Raises AwsError."""
    rows = [
        row
        for row in backend.database.image_builder.owned(identity.account, identity.region)
        if row.kind == kind and params.get("owner", "Self") == "Self"
    ]
    for each in params.get("filters", []):
        if each.get("name") not in FILTERS:
            text = f"The filter {each.get('name')} is not supported here; {', '.join(FILTERS)} are"
            raise AwsError("InvalidRequestException", text)
        rows = [row for row in rows if getattr(row, FILTERS[each["name"]]) in each.get("values", [])]
    asked = {"MaxResults": params.get("maxResults"), "NextToken": params.get("nextToken")}
    shown, token = filters.page(rows, asked, {}, least=1, most=100)
    return list(shown), token


def _to_api(row: ImageBuilderResource) -> dict[str, Any]:
    given = json.loads(row.data)
    left_out = ("clientToken", "dryRun", "semanticVersion")
    return {
        "parentImage": row.parent_image or None,
        **{name: value for name, value in given.items() if name not in left_out},
        "arn": row.id,
        "platform": "Linux",
        "owner": row.account,
        "dateCreated": iso(row.created),
    }


def _only(described: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: described[name] for name in names if described.get(name) is not None}
