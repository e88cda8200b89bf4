"""Recycle Bin's retention rules. They retain from the moment they exist; EC2's first rule of a region takes a while."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from imagepipe.local.aws.authentication.signature import Identity
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.context import RequestContext
from imagepipe.local.aws.ec2 import retention
from imagepipe.local.aws.protocol import filters, rest_json
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.errors import AwsError
from imagepipe.local.aws.protocol.query import Answer
from imagepipe.local.aws.state.records import RetentionRule
from imagepipe.partitions import partition

MAX_DAYS = 365  # EBS user guide: snapshots and images are retained for 1 to 365 days
LETTERS = string.ascii_letters + string.digits
Params = Mapping[str, Any]


def answer(backend: Backend, context: RequestContext, action: str) -> Answer | None:
    """Answer one of the actions on retention rules; None for any other request."""
    run = ACTIONS.get(action)
    if run is None:
        return None
    params = rest_json.params("rbin", context.request)
    with backend.database.change():
        return rest_json.answer("rbin", action, run(backend, context.identity, params))


def create_rule(backend: Backend, identity: Identity, params: Params) -> Mapping[str, Any]:
    if params["ResourceType"] not in (retention.IMAGE, retention.SNAPSHOT):
        raise _invalid(f"The local cloud retains no resources of the type {params['ResourceType']}")
    if "LockConfiguration" in params:
        raise _invalid("The local cloud does not lock retention rules: leave out LockConfiguration")
    rule = RetentionRule(
        id="".join(secrets.choice(LETTERS) for _ in range(11)),
        account=identity.account,
        region=identity.region,
        tags=_own_tags(params),
        resource_type=params["ResourceType"],
        days=_days(params["RetentionPeriod"]),
        description=str(params.get("Description", "")),
    )
    rule = _with_tags(rule, params)
    backend.database.put(rule)
    return {**_to_api(rule), "Tags": tagging.to_api(rule.tags)}


def get_rule(backend: Backend, identity: Identity, params: Params) -> Mapping[str, Any]:
    return _to_api(_find(backend, identity, params))


def update_rule(backend: Backend, identity: Identity, params: Params) -> Mapping[str, Any]:
    """Change a rule, for resources that are deleted from now on."""
    rule = _find(backend, identity, params)
    if params.get("ResourceType", rule.resource_type) != rule.resource_type:
        raise _invalid("The resource type of a retention rule cannot be changed")
    rule = replace(rule, description=str(params.get("Description", rule.description)))
    if "RetentionPeriod" in params:
        rule = replace(rule, days=_days(params["RetentionPeriod"]))
    rule = _with_tags(rule, params)
    backend.database.put(rule)
    return _to_api(rule)


def delete_rule(backend: Backend, identity: Identity, params: Params) -> Mapping[str, Any]:
    """Delete a rule. The resources that it retained stay in the bin until their time ends."""
    backend.database.remove(_find(backend, identity, params))
    return {}


def list_rules(backend: Backend, identity: Identity, params: Params) -> Mapping[str, Any]:
    """List the rules for a type of resources, and with these tags if the request names any."""
    wanted, excluded = _pairs(params.get("ResourceTags", [])), _pairs(params.get("ExcludeResourceTags", []))
    rows = [
        rule
        for rule in backend.database.retention_rules.owned(identity.account, identity.region)
        if rule.resource_type == params["ResourceType"]
        and set(wanted) <= set(rule.resource_tags)
        and set(excluded) <= set(rule.exclude_tags)
        and params.get("LockState", "unlocked") == "unlocked"
    ]
    shown, token = filters.page(rows, {**params, "Filters": ()}, {}, least=1)
    names = ("Identifier", "Description", "RetentionPeriod", "RuleArn")
    return {"Rules": [{name: _to_api(rule)[name] for name in names} for rule in shown], "NextToken": token}


ACTIONS: Mapping[str, Callable[[Backend, Identity, Params], Mapping[str, Any]]] = {
    "CreateRule": create_rule,
    "GetRule": get_rule,
    "UpdateRule": update_rule,
    "DeleteRule": delete_rule,
    "ListRules": list_rules,
}


def rule_arn(account: str, region: str, identifier: str) -> str:
    return f"arn:{partition(region)}:rbin:{region}:{account}:rule/{identifier}"


def _days(period: Mapping[str, Any]) -> int:
    days = int(period["RetentionPeriodValue"])
    if not 1 <= days <= MAX_DAYS:
        raise _invalid(f"The retention period must be from 1 to {MAX_DAYS} days; it is {days}")
    return days


def _with_tags(rule: RetentionRule, params: Params) -> RetentionRule:
    """Return the rule with the tags of resources that a request names. Raises AwsError if it has both kinds."""
    rule = replace(
        rule,
        resource_tags=_pairs(params["ResourceTags"]) if "ResourceTags" in params else rule.resource_tags,
        exclude_tags=_pairs(params["ExcludeResourceTags"]) if "ExcludeResourceTags" in params else rule.exclude_tags,
    )
    if rule.resource_tags and rule.exclude_tags:
        raise _invalid("A rule for resources with tags cannot exclude tags: only a rule for all resources of a region")
    return rule


def _pairs(tags: Sequence[Mapping[str, str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (tag["ResourceTagKey"], tag["ResourceTagValue"]) if "ResourceTagValue" in tag else (tag["ResourceTagKey"],)
        for tag in tags
    )


def _own_tags(params: Params) -> dict[str, str]:
    try:
        return tagging.parse(params.get("Tags", []))
    except AwsError as error:
        raise _invalid(error.message) from error


def _find(backend: Backend, identity: Identity, params: Params) -> RetentionRule:
    rule = backend.database.retention_rules.get(str(params["Identifier"]))
    if rule is None or (rule.account, rule.region) != (identity.account, identity.region):
        text = f"The retention rule {params['Identifier']} does not exist"
        raise AwsError("ResourceNotFoundException", text, status=404)
    return rule


def _to_api(rule: RetentionRule) -> dict[str, Any]:
    return {
        "Identifier": rule.id,
        "Description": rule.description,
        "ResourceType": rule.resource_type,
        "RetentionPeriod": {"RetentionPeriodValue": rule.days, "RetentionPeriodUnit": "DAYS"},
        "ResourceTags": _pairs_to_api(rule.resource_tags),
        "ExcludeResourceTags": _pairs_to_api(rule.exclude_tags),
        "Status": "available",
        "LockState": None if rule.resource_tags else "unlocked",
        "RuleArn": rule_arn(rule.account, rule.region, rule.id),
    }


def _pairs_to_api(pairs: Sequence[tuple[str, ...]]) -> list[dict[str, str]]:
    return [dict(zip(("ResourceTagKey", "ResourceTagValue"), pair, strict=False)) for pair in pairs]


def _invalid(text: str) -> AwsError:
    return AwsError("ValidationException", text)
