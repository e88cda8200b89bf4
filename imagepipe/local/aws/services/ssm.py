"""Parameters of Systems Manager: Debian's public one, and the check of those whose values are image ids.

The public parameter has the newest image of Debian's, by the name under which Debian publishes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.ec2.region_setup import base_image_id, name_of_base, prepare_base_images
from imagepipe.local.aws.moto.parameters import IMAGE, newest_version
from imagepipe.local.aws.protocol import query
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer

DATA_TYPE = "DataType"
"""The filter of DescribeParameters that moto lacks."""
MAX_PAGE = 50
JSON = "application/x-amz-json-1.1"


Body = Mapping[str, Any]


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer a request that concerns the public parameter or an image parameter; None for one that moto may answer."""
    run = _ANSWERS.get(action)
    return run(backend, context, query.json_object(context.request.body)) if run else None


def _get_parameter(backend: Backend, context: RequestContext, body: Body) -> Answer | None:
    """Get the public parameter, or a parameter by its ARN; None for one that moto finds by its name."""
    base = name_of_base(backend)
    name = _own_name(str(body.get("Name", "")), context) or body.get("Name")
    if base is not None and name == base:
        return _json({"Parameter": _parameter(backend, context.identity.region, base)})
    if name == body.get("Name"):
        return None
    return backend.moto.answer(_with_body(context, {**body, "Name": name}), "GetParameter")


def _get_parameters(backend: Backend, context: RequestContext, body: Body) -> Answer | None:
    """Get the public parameter beside the others; None if it is not among them."""
    names, base = body.get("Names", []), name_of_base(backend)
    if base is None or base not in names:
        return None
    others = [name for name in names if name != base]
    result: dict[str, Any] = {"Parameters": [], "InvalidParameters": []}
    if others:
        answer_to_others = backend.moto.answer(_with_body(context, {**body, "Names": others}), "GetParameters")
        if answer_to_others.status != 200:
            return answer_to_others
        result = json.loads(answer_to_others.body)
    public = _parameter(backend, context.identity.region, base)
    return _json({**result, "Parameters": [public, *result["Parameters"]]})


def _put_image_parameter(backend: Backend, context: RequestContext, body: Body) -> Answer | None:
    """Put a parameter of the type `aws:ec2:image`; None for one of another type.

    Systems Manager checks the image after its answer. If the image is not available to the account, the answer is
    that of a success, and the parameter is not created or changed (API reference, PutParameter, `DataType`).
    """
    account, region, name = context.identity.account, context.identity.region, str(body.get("Name", ""))
    if body.get("DataType") != IMAGE:
        return None
    version = newest_version(backend.moto, account, region, name)
    if body.get("Type", "String") != "String":
        text = f"The data type {IMAGE} is for parameters of the type String, and not {body['Type']}"
        raise AwsError("ValidationException", text)
    if version is not None and not body.get("Overwrite"):
        return None  # moto refuses it
    accepted = _json({"Version": (version or 0) + 1, "Tier": "Standard"})
    if not _is_available(backend, account, region, str(body.get("Value", ""))):
        return accepted
    if not backend.job_queues.has_delay("parameter"):
        return None

    def put() -> None:
        backend.job_queues.delay("parameter")
        backend.moto.answer(context, "PutParameter")

    backend.job_queues.submit(f"parameter {account}/{region}/{name}", put)
    return accepted


def _describe_by_data_type(backend: Backend, context: RequestContext, body: Body) -> Answer | None:
    """Describe the parameters of some data types, for which moto has no filter; None without that filter."""
    given = list(body.get("ParameterFilters", []))
    wanted = [each for each in given if each.get("Key") == DATA_TYPE]
    if not wanted:
        return None
    if any(each.get("Option", "Equals") != "Equals" or not each.get("Values") for each in wanted):
        raise AwsError("InvalidFilterOption", f"The filter {DATA_TYPE} compares with values, by the option Equals")
    rest = {"ParameterFilters": [each for each in given if each.get("Key") != DATA_TYPE], "MaxResults": MAX_PAGE}
    found: list[dict[str, Any]] = []
    token: str | None = ""
    while token is not None:
        asked = {**rest, **({"NextToken": token} if token else {})}
        answer_to_rest = backend.moto.answer(_with_body(context, asked), "DescribeParameters")
        if answer_to_rest.status != 200:
            return answer_to_rest
        page = json.loads(answer_to_rest.body)
        found += [row for row in page["Parameters"] if all(row["DataType"] in each["Values"] for each in wanted)]
        token = page.get("NextToken") or None
    return _json(_page(found, body))


def _page(rows: list[dict[str, Any]], body: Body) -> dict[str, Any]:
    """Return the page of the rows, sorted by name, that a request asks for. The token is the last name of the page."""
    rows = sorted(rows, key=lambda row: str(row["Name"]))
    rest = [row for row in rows if str(row["Name"]) > str(body.get("NextToken") or "")]
    size = int(body.get("MaxResults") or MAX_PAGE)
    if not 1 <= size <= MAX_PAGE:
        raise AwsError("ValidationException", f"MaxResults must be from 1 to {MAX_PAGE}; it is {size}")
    shown = rest[:size]
    return {"Parameters": shown, **({"NextToken": shown[-1]["Name"]} if len(rest) > size else {})}


def _is_available(backend: Backend, account: str, region: str, image_id: str) -> bool:
    """Tell if the account could launch the image."""
    prepare_base_images(backend, region)
    image = backend.database.images.get(image_id)
    if image is None or (image.region, image.state) != (region, "available"):
        return False
    return image.account == account or not backend.accounts.names_of(account).isdisjoint(image.users)


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


def _with_body(context: RequestContext, body: Body) -> RequestContext:
    return context.with_request(replace(context.request, body=json.dumps(body).encode()))


def _json(body: object) -> Answer:
    return Answer(200, (("Content-Type", JSON),), json.dumps(body).encode())


_ANSWERS: Mapping[str, Callable[[Backend, RequestContext, Body], Answer | None]] = {
    "DescribeParameters": _describe_by_data_type,
    "GetParameter": _get_parameter,
    "GetParameters": _get_parameters,
    "PutParameter": _put_image_parameter,
}
