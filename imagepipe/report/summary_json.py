"""The report of a run as JSON for programs. Its format is published: docs/reference/report.schema.json.

A field may be added within a version of the format. A field that is removed, or that changes its meaning, raises it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from imagepipe.clock import iso
from imagepipe.report.model import RunReport, StageReport

FORMAT_VERSION = 1


def summary(report: RunReport) -> dict[str, Any]:
    """Return the report. Times are seconds since `started`; an unknown value is null."""
    return {
        "format_version": FORMAT_VERSION,
        "run": report.run,
        "outcome": report.outcome,
        "specs": list(report.specs),
        "started": iso(report.started),
        "seconds": _rounded(report.seconds),
        "commit": report.commit or None,
        "images": [
            {"spec": each.spec, "region": each.region, "image_id": each.id, "name": each.name, "new": each.is_new}
            for each in report.images
        ],
        "errors": [_error(stage) for stage in report.failures],
        "held": list(report.held),
        "next_command": report.next_command or None,
        "critical_path": list(report.critical_path),
        "stages": [_stage(stage) for stage in report.stages],
        "findings": [{**asdict(each), "allowed": each.allowed or None} for each in report.findings],
        "resources": [
            {**asdict(each), "created": _rounded(each.created), "deleted": _rounded(each.deleted)}
            for each in report.resources
        ],
        "sources": [
            {
                "spec": each.spec,
                "image_id": each.id,
                "name": each.name,
                "base": each.base or None,
                "fingerprint": each.fingerprint or None,
            }
            for each in report.sources
        ],
        "machines": [
            {
                "instance_id": each.id,
                "region": each.region,
                "instance_type": each.instance_type,
                "seconds": _rounded(each.seconds),
                "hourly_price": each.hourly_price,
                "cost": each.cost,
            }
            for each in report.machines
        ],
        "currency": report.currency or None,
        "price_date": report.price_date or None,
    }


def _error(stage: StageReport) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "spec": stage.spec,
        "step": stage.step or None,
        "title": stage.title,
        "region": stage.region or None,
        "code": stage.code or None,
        "message": stage.error,
        "hint": stage.hint or None,
        "optional": stage.is_optional,
        "last_lines": [line.text for line in stage.log.tail()],
    }


def _stage(stage: StageReport) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "title": stage.title,
        "spec": stage.spec,
        "region": stage.region or None,
        "needs": list(stage.needs),
        "test": stage.is_test,
        "optional": stage.is_optional,
        "status": stage.status,
        "start": _rounded(stage.start),
        "seconds": _rounded(stage.seconds),
        "summary": stage.summary or None,
        "lines": stage.log.count,
        "spans": [
            {"label": each.label, "start": _rounded(each.start), "seconds": _rounded(each.seconds)}
            for each in stage.spans
        ],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
