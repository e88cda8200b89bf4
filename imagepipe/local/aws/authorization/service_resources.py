"""The resources for which Systems Manager, Auto Scaling, Image Builder and Recycle Bin ask IAM.

Source: the Service Authorization Reference of each service, "Actions" and "Resource types".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from imagepipe.iam.facts import ANY
from imagepipe.local.aws.authentication.signature import Identity, Request
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.moto.parameters import IMAGE, parameter_arn
from imagepipe.local.aws.protocol import query, rest_json
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.services import autoscaling, imagebuilder, rbin
from imagepipe.partitions import partition

Permissions = Iterator[tuple[str, str]]
"""IAM's actions, each with the ARN of the resource."""


def permissions(backend: Backend, identity: Identity, action: str, request: Request) -> Permissions:
    """Yield the permissions that a request needs. Raises AwsError for an unknown action."""
    find = _SERVICES[identity.service]
    found = list(find(backend, identity, action, request))
    if not found:
        text = f"The local cloud does not know what {identity.service}:{action} asks of IAM, so no caller with a policy"
        raise AwsError("AccessDeniedException", f"{text} may do it", status=403)
    yield from found


def _parameters(backend: Backend, identity: Identity, action: str, request: Request) -> Permissions:
    body = query.json_object(request.body)

    def arn(name: object) -> str:
        return parameter_arn(identity.account, identity.region, str(name))

    match action:
        case "GetParameters" | "DeleteParameters":
            yield from ((f"ssm:{action}", arn(name)) for name in body.get("Names", []))
        case "GetParametersByPath":
            yield f"ssm:{action}", arn(body.get("Path", ""))
        case "GetParameter" | "DeleteParameter" | "GetParameterHistory" | "LabelParameterVersion":
            yield f"ssm:{action}", arn(body.get("Name", ""))
        case "PutParameter":
            yield "ssm:PutParameter", arn(body.get("Name", ""))
            if body.get("Tags"):
                yield "ssm:AddTagsToResource", arn(body.get("Name", ""))
            if body.get("DataType") == IMAGE:  # Systems Manager user guide, "Native parameter support for AMI IDs"
                yield "ec2:DescribeImages", ANY
        case "AddTagsToResource" | "RemoveTagsFromResource" | "ListTagsForResource":
            yield f"ssm:{action}", arn(body.get("ResourceId", ""))
        case "DescribeParameters":
            yield f"ssm:{action}", ANY


def _scaling_groups(backend: Backend, identity: Identity, action: str, request: Request) -> Permissions:
    if action not in autoscaling.ACTIONS:
        return
    values = query.form(request.query, request.body)
    database = backend.database
    for parameter, kind, rows in (
        ("AutoScalingGroupName", "autoScalingGroup", database.scaling_groups),
        ("LaunchConfigurationName", "launchConfiguration", database.launch_configurations),
    ):
        if action.startswith("Describe") or not action.lower().endswith(kind.lower()):
            continue
        name = values.get(parameter, "")
        found = [
            row for row in rows if (row.account, row.region, row.name) == (identity.account, identity.region, name)
        ]
        owner = f"arn:{partition(identity.region)}:autoscaling:{identity.region}:{identity.account}"
        yield f"autoscaling:{action}", found[0].id if found else f"{owner}:{kind}:*:{kind}Name/{name}"
        return
    yield f"autoscaling:{action}", ANY


def _recipes(backend: Backend, identity: Identity, action: str, request: Request) -> Permissions:
    if action not in imagebuilder.ACTIONS:
        return
    params = rest_json.params("imagebuilder", request)
    kinds = {"Component": "component", "ImageRecipe": "image-recipe", "ContainerRecipe": "container-recipe"}
    named = next((str(value) for name, value in params.items() if name.endswith("Arn")), "")
    if action.startswith("Create"):
        kind = kinds[action.removeprefix("Create")]
        version = str(params["semanticVersion"])
        named = imagebuilder.resource_arn(identity.account, identity.region, kind, params["name"], version)
    yield f"imagebuilder:{action}", named or ANY


def _rules(backend: Backend, identity: Identity, action: str, request: Request) -> Permissions:
    if action == "ListRules":
        yield "rbin:ListRules", ANY
    elif action in rbin.ACTIONS:
        identifier = str(rest_json.params("rbin", request).get("Identifier", "*"))
        yield f"rbin:{action}", rbin.rule_arn(identity.account, identity.region, identifier)


_SERVICES: Mapping[str, Callable[[Backend, Identity, str, Request], Permissions]] = {
    "autoscaling": _scaling_groups,
    "imagebuilder": _recipes,
    "rbin": _rules,
    "ssm": _parameters,
}
SERVICES = frozenset(_SERVICES)
