"""The resources that use images: instances, launch templates, parameters and recipes (EC2 user guide, "AMI usage").

EC2 knows no Auto Scaling group and no launch configuration here; nor a launch template that names a parameter: it is
found by the parameter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import field
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.moto.parameters import image_parameters
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol.errors import conflicting, invalid, missing
from imagepipe.local.aws.protocol.ids import check_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import ImageBuilderResource
from imagepipe.partitions import partition

INSTANCE, TEMPLATE, PARAMETER = "ec2:Instance", "ec2:LaunchTemplate", "ssm:Parameter"
IMAGE_RECIPE, CONTAINER_RECIPE = "imagebuilder:ImageRecipe", "imagebuilder:ContainerRecipe"
READS: Mapping[str, tuple[str, ...]] = {
    INSTANCE: ("ec2:DescribeInstances",),
    TEMPLATE: ("ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions"),
    PARAMETER: ("ssm:DescribeParameters", "ssm:GetParameters"),
    IMAGE_RECIPE: ("imagebuilder:ListImageRecipes",),
    CONTAINER_RECIPE: ("imagebuilder:ListContainerRecipes", "imagebuilder:GetContainerRecipe"),
}
"""The actions that a caller needs beside DescribeImageReferences, by resource type."""
STATES = ("pending", "running", "shutting-down", "terminated", "stopping", "stopped")
DEPTH = 10  # EC2 user guide: the ten most recent versions, unless the request says another number
MAX_DEPTH = 10_000
MAX_IMAGES = 10


@dataclass(frozen=True, slots=True)
class Scope:
    """The part of the resources of one type that is checked."""

    states: Set[str] = frozenset(STATES)
    """States of instances."""
    depth: int = DEPTH
    """Number of launch template versions, from the newest one."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A resource that uses an image."""

    image_id: str
    resource_type: str
    arn: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.image_id} {self.resource_type} {self.arn}"


Finder = Callable[[Backend, str, str, Set[str], Scope], Iterator[Reference]]
"""Finds the references of an account and region to these images."""


def describe_image_references(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Describe the caller's own resources that use the images, which need not exist."""
    identifiers = [str(each) for each in call.params.get("ImageIds", [])]
    if not 1 <= len(identifiers) <= MAX_IMAGES:
        raise invalid(f"Between 1 and {MAX_IMAGES} image IDs must be specified; there are {len(identifiers)}")
    for identifier in identifiers:
        check_id("ami", identifier)
    scopes = _scopes(call.params)
    found = [
        reference
        for kind, scope in scopes.items()
        for reference in find(backend, call.account, call.region, kind, frozenset(identifiers), scope)
    ]
    found.sort(key=lambda each: (identifiers.index(each.image_id), list(READS).index(each.resource_type), each.arn))
    shown, token = filters.page(found, {**call.params, "Filters": ()}, {})
    described = [{"ImageId": row.image_id, "ResourceType": row.resource_type, "Arn": row.arn} for row in shown]
    return {"ImageReferences": described, "NextToken": token}


def find(
    backend: Backend, account: str, region: str, resource_type: str, images: Set[str], scope: Scope
) -> Iterator[Reference]:
    """Find the account's resources of one type that use one of these images."""
    yield from _FINDERS[resource_type](backend, account, region, images, scope)


def requested(params: Mapping[str, Any]) -> list[str]:
    """List the resource types that a request names, or all. Raises AwsError."""
    named = [str(each.get("ResourceType")) for each in params.get("ResourceTypes", [])]
    if params.get("IncludeAllResourceTypes"):
        named = list(dict.fromkeys((*READS, *named)))
    if not named:
        raise missing("ResourceTypes or IncludeAllResourceTypes")
    for name in named:
        if name not in READS:
            raise invalid(f"Value ({name}) for parameter resourceType is invalid.")
    return named


def _scopes(params: Mapping[str, Any]) -> dict[str, Scope]:
    """Return the resource types to check; options of the request replace the default values. Raises AwsError."""
    scopes = {name: Scope() for name in requested(params)}
    for each in params.get("ResourceTypes", []):
        name = str(each["ResourceType"])
        for option in each.get("ResourceTypeOptions", []):
            values = [str(value) for value in option.get("OptionValues", [])]
            match (name, option.get("OptionName")):
                case ("ec2:Instance", "state-name"):
                    scopes[name] = Scope(states=_states(values))
                case ("ec2:LaunchTemplate", "version-depth"):
                    scopes[name] = Scope(depth=depth_of(values))
                case (_, option_name):
                    raise conflicting(f"The option {option_name} is not valid for the resource type {name}")
    return scopes


def _states(values: Sequence[str]) -> frozenset[str]:
    if not values or not set(values) <= set(STATES):
        raise invalid(f"The option state-name must have values of {', '.join(STATES)}; it has: {', '.join(values)}")
    return frozenset(values)


def depth_of(values: Sequence[str]) -> int:
    """Return the number of launch template versions to check. Raises AwsError."""
    if len(values) != 1 or not values[0].isdecimal() or not 1 <= int(values[0]) <= MAX_DEPTH:
        raise invalid(f"The option version-depth must be one number from 1 to {MAX_DEPTH}; it is: {', '.join(values)}")
    return int(values[0])


def _instances(backend: Backend, account: str, region: str, images: Set[str], scope: Scope) -> Iterator[Reference]:
    for row in backend.database.instances.owned(account, region):
        if row.image_id in images and row.state in scope.states:
            yield Reference(row.image_id, INSTANCE, _ec2_arn(account, region, f"instance/{row.id}"))


def _templates(backend: Backend, account: str, region: str, images: Set[str], scope: Scope) -> Iterator[Reference]:
    """Find launch templates; one with several versions that use an image counts once."""
    for row in backend.database.templates.owned(account, region):
        used = {json.loads(version.data).get("ImageId") for version in row.versions[-scope.depth :]}
        for image_id in sorted(used & images):
            yield Reference(image_id, TEMPLATE, _ec2_arn(account, region, f"launch-template/{row.id}"))


def _parameters(backend: Backend, account: str, region: str, images: Set[str], scope: Scope) -> Iterator[Reference]:
    for parameter in image_parameters(backend.moto, account, region):
        if parameter.value in images:
            yield Reference(parameter.value, PARAMETER, parameter.arn)


def _recipes(kind: str, resource_type: str) -> Finder:
    def find_recipes(
        backend: Backend, account: str, region: str, images: Set[str], scope: Scope
    ) -> Iterator[Reference]:
        row: ImageBuilderResource
        for row in backend.database.image_builder.owned(account, region):
            if row.kind == kind and row.parent_image in images:
                yield Reference(row.parent_image, resource_type, row.id)

    return find_recipes


_FINDERS: Mapping[str, Finder] = {
    INSTANCE: _instances,
    TEMPLATE: _templates,
    PARAMETER: _parameters,
    IMAGE_RECIPE: _recipes("image-recipe", IMAGE_RECIPE),
    CONTAINER_RECIPE: _recipes("container-recipe", CONTAINER_RECIPE),
}


def _ec2_arn(account: str, region: str, resource: str) -> str:
    return f"arn:{partition(region)}:ec2:{region}:{account}:{resource}"
