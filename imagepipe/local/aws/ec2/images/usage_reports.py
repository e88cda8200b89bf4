"""Usage reports: how many resources of other accounts use an image (EC2 user guide, "View your AMI usage")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import timedelta
from typing import Any

from imagepipe.dataclass import dataclass
from imagepipe.local.aws.backend import Backend
from imagepipe.local.aws.ec2 import idempotency, lookup
from imagepipe.local.aws.ec2.images import references
from imagepipe.local.aws.ec2.sharing import ACCOUNT
from imagepipe.local.aws.moto.refusals import unknown_id
from imagepipe.local.aws.protocol import filters
from imagepipe.local.aws.protocol import tags as tagging
from imagepipe.local.aws.protocol.documented_filters import AnswerFilters
from imagepipe.local.aws.protocol.errors import conflicting, invalid, missing
from imagepipe.local.aws.protocol.ids import check_id, new_id
from imagepipe.local.aws.protocol.query import Call
from imagepipe.local.aws.state.records import UsageEntry, UsageReport

TYPES = (references.INSTANCE, references.TEMPLATE, references.IMAGE_RECIPE, references.CONTAINER_RECIPE)
DEPTH = 20  # API reference, ImageUsageResourceTypeOptionRequest
KEPT = timedelta(days=30)
MAX_TOKEN = 128
MAX_NAMED = 200


def create_image_usage_report(backend: Backend, call: Call) -> Mapping[str, Any]:
    """Create a report, which is `pending` until the resources are counted."""
    before = idempotency.earlier_result(backend, call, max_length=MAX_TOKEN)
    if before is not None:
        return {"ReportId": before[0]}
    image = lookup.own_image(backend, call, call.text("ImageId"))
    depths = _depths(call.params)
    report = UsageReport(
        id=new_id("amiur"),
        account=call.account,
        region=call.region,
        tags=tagging.parse_specifications(call.params, "image-usage-report")["image-usage-report"],
        image_id=image.id,
        resource_types={name: depth or DEPTH for name, depth in depths.items()},
        given_depths=tuple(name for name, depth in depths.items() if depth),
        accounts=_accounts(call.params),
        created=backend.clock.now(),
    )
    backend.faults.bind(report.id, call.action, call.params, "fail", "hang")
    backend.database.put(report)
    idempotency.remember(backend, call, [report.id])
    backend.submit_later(report.id, fill, report.id)
    return {"ReportId": report.id}


def _depths(params: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the number of versions to check that the request gives for each resource type. Raises AwsError."""
    depths: dict[str, int | None] = {}
    for each in params.get("ResourceTypes", []):
        name = str(each.get("ResourceType"))
        if name not in TYPES:
            raise invalid(f"Value ({name}) for parameter resourceType is invalid. It must be one of {', '.join(TYPES)}")
        depths[name] = None
        for option in each.get("ResourceTypeOptions", []):
            if (name, option.get("OptionName")) != (references.TEMPLATE, "version-depth"):
                raise conflicting(f"The option {option.get('OptionName')} is not valid for the resource type {name}")
            depths[name] = references.depth_of([str(value) for value in option.get("OptionValues", [])])
    if not depths:
        raise missing("ResourceTypes")
    return depths


def _accounts(params: Mapping[str, Any]) -> tuple[str, ...]:
    named = tuple(str(each) for each in params.get("AccountIds", []))
    if len(named) > MAX_NAMED:
        raise invalid(f"At most {MAX_NAMED} account IDs can be specified; there are {len(named)}")
    for name in named:
        if not ACCOUNT.fullmatch(name):
            raise invalid(f"Value ({name}) for parameter accountIds is invalid. An account ID has 12 digits.")
    return named


def fill(backend: Backend, report_id: str) -> None:
    """Count the resources of a pending report, and make it available."""
    backend.job_queues.delay("usage-report")
    with backend.database.change():
        report = backend.database.usage_reports.get(report_id)
        if report is None or report.state != "pending" or backend.faults.bound(report_id, "hang"):
            return
        if fault := backend.faults.bound(report_id, "fail"):
            backend.database.put(replace(report, state="error", reason=fault.reason))
        else:
            backend.database.put(replace(report, state="available", entries=_count(backend, report)))


def resume(backend: Backend) -> None:
    """Submit the pending reports of an earlier process again."""
    for report in backend.database.usage_reports:
        if report.state == "pending":
            backend.submit(report.id, fill, report.id)


def forget_expired(backend: Backend) -> None:
    """Delete the reports that EC2 would have deleted by now."""
    for report in backend.database.usage_reports:
        if _has_expired(backend, report):
            backend.database.remove(report)


def _count(backend: Backend, report: UsageReport) -> tuple[UsageEntry, ...]:
    """Count the other accounts' resources that use the image."""
    database = backend.database
    present = {row.account for table in (database.instances, database.templates) for row in table}
    present |= {row.account for row in database.image_builder}
    accounts = (present & set(report.accounts) if report.accounts else present) - {report.account}
    counts: Counter[tuple[str, str]] = Counter()
    for account in sorted(accounts):
        for kind, depth in report.resource_types.items():
            scope = references.Scope(depth=depth)
            found = references.find(backend, account, report.region, kind, {report.image_id}, scope)
            counts[account, kind] += sum(1 for _ in found)
    return tuple(
        UsageEntry(account=who, resource_type=kind, count=count) for (who, kind), count in counts.items() if count
    )


def describe_image_usage_reports(backend: Backend, call: Call) -> Mapping[str, Any]:
    getters = AnswerFilters("DescribeImageUsageReports", _to_api)
    shown, token = filters.page(_reports(backend, call), call.params, getters, least=1)
    return {"ImageUsageReports": [_to_api(row) for row in shown], "NextToken": token}


@dataclass(frozen=True, slots=True)
class _Row:
    """An entry and its report."""

    report: UsageReport
    entry: UsageEntry
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.report.id} {self.entry.account} {self.entry.resource_type}"


def describe_image_usage_report_entries(backend: Backend, call: Call) -> Mapping[str, Any]:
    rows = [_Row(report, entry) for report in _reports(backend, call) for entry in report.entries]
    getters = AnswerFilters("DescribeImageUsageReportEntries", _entry_to_api)
    shown, token = filters.page(rows, call.params, getters, least=1)
    return {"ImageUsageReportEntries": [_entry_to_api(row) for row in shown], "NextToken": token}


def delete_image_usage_report(backend: Backend, call: Call) -> Mapping[str, Any]:
    [report] = _reports(backend, replace(call, params={"ReportIds": [call.text("ReportId")]}))
    backend.database.remove(report)
    return {"Return": True}


def _reports(backend: Backend, call: Call) -> list[UsageReport]:
    """Find the caller's reports that a request names by their ids or by images. Raises AwsError."""
    rows = [
        row for row in backend.database.usage_reports.owned(call.account, call.region) if not _has_expired(backend, row)
    ]
    reports, images = call.params.get("ReportIds", []), call.params.get("ImageIds", [])
    for name, given in (("ReportIds", reports), ("ImageIds", images)):
        if len(given) > MAX_NAMED:
            raise invalid(f"At most {MAX_NAMED} {name} can be specified; there are {len(given)}")
    for identifier in images:
        check_id("ami", identifier)
    for identifier in reports:
        if identifier not in {row.id for row in rows}:
            raise unknown_id(identifier)
    return [row for row in rows if (not reports or row.id in reports) and (not images or row.image_id in images)]


def _has_expired(backend: Backend, report: UsageReport) -> bool:
    return report.created + KEPT <= backend.clock.now()


def _to_api(report: UsageReport) -> dict[str, Any]:
    return {
        "ImageId": report.image_id,
        "ReportId": report.id,
        "ResourceTypes": [_type_to_api(report, name, depth) for name, depth in report.resource_types.items()],
        "AccountIds": list(report.accounts) or None,
        "State": report.state,
        "StateReason": report.reason or None,
        "CreationTime": report.created,
        "ExpirationTime": report.created + KEPT,
        "Tags": tagging.if_any(report.tags),
    }


def _type_to_api(report: UsageReport, name: str, depth: int) -> dict[str, Any]:
    if name not in report.given_depths:
        return {"ResourceType": name}
    option = {"OptionName": "version-depth", "OptionValues": [str(depth)]}
    return {"ResourceType": name, "ResourceTypeOptions": [option]}


def _entry_to_api(row: _Row) -> dict[str, Any]:
    return {
        "ResourceType": row.entry.resource_type,
        "ReportId": row.report.id,
        "UsageCount": row.entry.count,
        "AccountId": row.entry.account,
        "ImageId": row.report.image_id,
        "ReportCreationTime": row.report.created,
    }
