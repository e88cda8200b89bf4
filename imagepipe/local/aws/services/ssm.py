"""Parameters of Systems Manager: Debian's public one, and the check of those whose values are image ids.

The public parameter has the newest image of Debian's, by the name under which Debian publishes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.authentication.signature import Request
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.ec2.region_setup import base_image_id, name_of_base, prepare_base_images
from imagepipe.local.aws.moto.parameters import IMAGE, newest_version
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

JSON = "application/x-amz-json-1.1"


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer a request that concerns the public parameter or an image parameter; None for one that moto may answer."""
    if action not in ("GetParameter", "GetParameters", "PutParameter"):
        return None
    request, region = context.request, context.identity.region
    body = _body(request)
    if action == "PutParameter":
        return _put_image_parameter(backend, context, body)
    base = name_of_base(backend)
    if action == "GetParameter":
        if name := _own_name(str(body.get("Name", "")), context):
            named = replace(request, body=json.dumps({**body, "Name": name}).encode())
            return answer(backend, context.with_request(named), action) or backend.moto.answer(
                context.with_request(named), action
            )
        if base is None or body.get("Name") != base:
            return None
        return _json({"Parameter": _parameter(backend, region, base)})
    names = body.get("Names", [])
    if base is None or base not in names:
        return None
    others = [name for name in names if name != base]
    result: dict[str, Any] = {"Parameters": [], "InvalidParameters": []}
    if others:
        rest = replace(request, body=json.dumps({**body, "Names": others}).encode())
        answer_to_others = backend.moto.answer(context.with_request(rest), action)
        if answer_to_others.status != 200:
            return answer_to_others
        result = json.loads(answer_to_others.body)
    return _json({**result, "Parameters": [_parameter(backend, region, base), *result["Parameters"]]})


def _put_image_parameter(backend: Backend, context: RequestContext, body: Mapping[str, Any]) -> Answer | None:
    """Put a parameter of the type `aws:ec2:image`; None for one of another type.

    Systems Manager checks the image after its answer. If the image is not available to the account, the answer is
    that of a success, and the parameter is not created or changed (API reference, PutParameter, `DataType`).
    """
    account, region, name = context.identity.account, context.identity.region, str(body.get("Name", ""))
    before = newest_version(backend.moto, account, region, name)
    data_type = body.get("DataType") or (before.data_type if before and body.get("Overwrite") else None)
    if data_type != IMAGE:
        return None
    if body.get("Type", "String") != "String":
        text = f"The data type {IMAGE} is for parameters of the type String, and not {body['Type']}"
        raise AwsError("ValidationException", text)
    if before is not None and not body.get("Overwrite"):
        return None  # moto refuses it
    if not _is_available(backend, account, region, str(body.get("Value", ""))):
        return _json({"Version": before.version + 1 if before else 1, "Tier": "Standard"})
    if not backend.job_queues.has_delay("parameter"):
        return None

    def put() -> None:
        backend.job_queues.delay("parameter")
        backend.moto.answer(context, "PutParameter")

    backend.job_queues.submit(f"parameter {account}/{region}/{name}", put)
    return _json({"Version": before.version + 1 if before else 1, "Tier": "Standard"})


def _is_available(backend: Backend, account: str, region: str, image_id: str) -> bool:
    """Tell if the account could launch the image."""
    prepare_base_images(backend, region)
    image = backend.database.images.get(image_id)
    if image is None or (image.region, image.state) != (region, "available"):
        return False
    return image.account == account or not backend.accounts.names_of(account).isdisjoint(image.users)


def _body(request: Request) -> dict[str, Any]:
    try:
        found = json.loads(request.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _own_name(arn: str, context: RequestContext) -> str | None:
    """Return the name in the ARN of a parameter of this account and region, which moto does not look up."""
    found = re.fullmatch(r"arn:aws:ssm:([a-z0-9-]+):(\d{12}):parameter(/[^:]+)(:[^:]+)?", arn)
    if found is None or (found[1], found[2]) != (context.identity.region, context.identity.account):
        return None
    return found[3] + (found[4] or "")


def _parameter(backend: Backend, region: str, name: str) -> dict[str, Any]:
    prepare_base_images(backend, region)
    return {
        "Name": name,
        "Type": "String",
        "Value": base_image_id(backend.base, region),
        "Version": 1,
        "LastModifiedDate": backend.base.created.timestamp(),
        "ARN": f"arn:aws:ssm:{region}::parameter{name}",
        "DataType": "text",
    }


def _json(body: object) -> Answer:
    return Answer(200, (("Content-Type", JSON),), json.dumps(body).encode())
