"""Describe actions that moto answers, with EC2's filters and pages.

moto has few of the filters that EC2 documents, and fails on the others. So moto lists everything that a request names,
and the gateway filters and pages its answer as it does its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from botocore.parsers import EC2QueryParser

from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.moto.adapter import Moto
from imagepipe.local.aws.moto.refusals import unknown_id
from imagepipe.local.aws.protocol import filters, query
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters, Described, documented, item_path
from imagepipe.local.aws.protocol.query import Answer

PAGING = ("MaxResults", "NextToken")
KEYS: Mapping[str, tuple[str, ...]] = {
    "DescribeAvailabilityZones": ("ZoneName",),
    "DescribeRegions": ("RegionName",),
}
"""The members that identify an item, if it has no id of its own."""


def is_filtered(action: str) -> bool:
    """Tell if this is an action whose answer the gateway filters or pages."""
    if not action.startswith("Describe"):
        return False
    return bool(documented(action)) or "MaxResults" in _members(action)


def describe(
    moto: Moto,
    context: RequestContext,
    action: str,
    values: Mapping[str, str],
    amend: Callable[[dict[str, Any]], dict[str, Any]],
) -> Answer:
    """Have moto describe everything, and return the page that the request asks for. Raises AwsError.

    `amend` corrects an item before it is filtered.
    """
    params = dict(query.params(action, values))
    params.setdefault("Filters", params.get("Filter", []))  # DescribeNatGateways has its own name for them
    plain = {name: value for name, value in values.items() if not name.startswith((*PAGING, "Filter."))}
    answer = moto.answer(with_form(context, plain), action)
    if answer.status != 200:
        return answer
    response = {"status_code": 200, "headers": dict(answer.headers), "body": answer.body}
    parsed: dict[str, Any] = EC2QueryParser().parse(response, query.operation(action).output_shape)
    parsed.pop("ResponseMetadata", None)
    [name] = item_path(action)
    rows = [Described(_key(action, name, item), item) for item in map(amend, parsed.get(name, []))]
    _check_known(params, rows)
    limits = _members(action)["MaxResults"].metadata if "MaxResults" in _members(action) else {}
    shown, token = filters.page(
        rows,
        params,
        AnswerFilters[Described](action, lambda row: row.value),
        least=limits.get("min", 1),
        most=limits.get("max", filters.MAX_PAGE),
    )
    return query.result(action, {**parsed, name: [row.value for row in shown], "NextToken": token}, context.request_id)


def _members(action: str) -> Mapping[str, Any]:
    shape: Any = query.operation(action).input_shape
    members: Mapping[str, Any] = shape.members if shape else {}
    return members


def _key(action: str, kind: str, item: Mapping[str, Any]) -> str:
    """Return the id of an item, or its name, for the token of the next page: `SubnetId` of an item of `Subnets`."""
    names = KEYS.get(action) or [name for name in (f"{kind}Id", f"{kind.removesuffix('s')}Id") if name in item]
    return " ".join(str(item.get(name)) for name in names)


def _check_known(params: Mapping[str, Any], rows: Sequence[Described]) -> None:
    """Raise AwsError for an id of the request that no item has: moto ignores some of them."""
    known = {row.id for row in rows}
    for name, wanted in params.items():
        if name.endswith("Ids") and isinstance(wanted, list):
            for identifier in wanted:
                if identifier not in known:
                    raise unknown_id(str(identifier))


def with_form(context: RequestContext, values: Mapping[str, str]) -> RequestContext:
    """Return a copy of the request with these parameters as a form, which moto reads in no other place."""
    body = urlencode(values).encode()
    other = context.with_request(replace(context.request, method="POST", query="", body=body))
    other.environ = {
        **context.environ,
        "REQUEST_METHOD": "POST",
        "QUERY_STRING": "",
        "CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8",
    }
    return other
