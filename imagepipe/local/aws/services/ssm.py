"""Public parameters of Systems Manager: the newest image of Debian's, by the name under which Debian publishes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.ec2.region_setup import base_image_id, name_of_base, prepare_base_images
from imagepipe.local.aws.protocol.query import Answer

JSON = "application/x-amz-json-1.1"


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer a request that names the public parameter, with moto's answer for the others; None if it does not."""
    if action not in ("GetParameter", "GetParameters"):
        return None
    request, region = context.request, context.identity.region
    try:
        body = json.loads(request.body)
    except ValueError:
        return None
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
