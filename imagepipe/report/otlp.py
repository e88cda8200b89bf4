"""The report of a run as OpenTelemetry traces, in the JSON encoding of OTLP (opentelemetry.io/docs/specs/otlp).

    curl --data @otlp.json -H 'Content-Type: application/json' "$OTEL_EXPORTER_OTLP_ENDPOINT/v1/traces"

The run is a span, and each stage a span within it. The attributes are those of the semantic conventions for CI/CD,
which are still in development; all of their names are here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from imagepipe import __version__
from imagepipe.report.model import RunReport

CONVENTIONS = "https://opentelemetry.io/schemas/1.37.0"
"""Version of the semantic conventions that the attributes are from."""
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}")
"""The environment variable by which a CI system says what the run is a part of (W3C, "Trace Context")."""
INTERNAL, OK, ERROR = 1, 1, 2
RESULTS = {"succeeded": "success", "failed": "failure", "cancelled": "cancellation", "died": "error"}


def otlp(report: RunReport, traceparent: str = "") -> dict[str, Any]:
    """Return an ExportTraceServiceRequest; `traceparent` is the span that the run belongs to, if there is one."""
    parent = TRACEPARENT.fullmatch(traceparent)
    trace = parent[1] if parent else trace_id(report.run)
    spans = [_run_span(report, trace, parent[2] if parent else ""), *_stage_spans(report, trace)]
    resource = [_attribute("service.name", "imagepipe"), _attribute("service.version", __version__)]
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": resource},
                "scopeSpans": [{"scope": {"name": "imagepipe", "version": __version__}, "spans": spans}],
                "schemaUrl": CONVENTIONS,
            }
        ]
    }


def _run_span(report: RunReport, trace: str, parent: str) -> dict[str, Any]:
    attributes = {
        **run_attributes(report.run, report.specs),
        **run_result(report.outcome),
        "vcs.ref.head.revision": report.commit,
        "imagepipe.images": ", ".join(f"{image.id} in {image.region}" for image in report.images),
    }
    return {
        **_span(report, trace, span_id(report.run), parent, (0.0, report.seconds)),
        "name": run_name(report.specs),
        "attributes": _attributes(attributes),
        "status": _status(run_error(report.outcome), is_ok=report.outcome == "succeeded"),
    }


def _stage_spans(report: RunReport, trace: str) -> Iterator[dict[str, Any]]:
    root, critical = span_id(report.run), set(report.critical_path)
    for stage in report.stages:
        if stage.start is None:
            continue
        attributes = {
            **stage_attributes(stage.name, stage.title, stage.spec, stage.region, is_test=stage.is_test),
            **stage_result(stage.status, stage.code),
            "imagepipe.critical": "true" if stage.name in critical else "",
        }
        times = (stage.start, report.elapsed(stage) or 0.0)
        yield {
            **_span(report, trace, span_id(report.run, stage.name), root, times),
            "name": stage.title,
            "attributes": _attributes(attributes),
            "status": _status(stage.error, is_ok=stage.status == "succeeded"),
            "events": [_event(report, each.label, each.start + each.seconds, each.seconds) for each in stage.spans],
        }


def _span(report: RunReport, trace: str, id: str, parent: str, times: tuple[float, float]) -> dict[str, Any]:
    start, seconds = times
    return {
        "traceId": trace,
        "spanId": id,
        **({"parentSpanId": parent} if parent else {}),
        "kind": INTERNAL,
        "startTimeUnixNano": _nanoseconds(report, start),
        "endTimeUnixNano": _nanoseconds(report, start + max(0.0, seconds)),
    }


def _event(report: RunReport, label: str, end: float, seconds: float) -> dict[str, Any]:
    attributes = [{"key": "seconds", "value": {"doubleValue": seconds}}]
    return {"name": label, "timeUnixNano": _nanoseconds(report, end), "attributes": attributes}


def _nanoseconds(report: RunReport, seconds: float) -> str:
    """Return a time as OTLP's JSON has it: a decimal string, because it is an integer of 64 bits."""
    return str(nanoseconds(report.started + timedelta(seconds=seconds)))


def _status(error: str, *, is_ok: bool) -> dict[str, Any]:
    return {"code": ERROR, "message": error} if error else {"code": OK} if is_ok else {}


def _attributes(values: dict[str, str]) -> list[dict[str, Any]]:
    return [_attribute(key, value) for key, value in values.items() if value]


def _attribute(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def run_attributes(run: str, specs: Sequence[str]) -> dict[str, str]:
    """Return the attributes of a run that are known when it starts."""
    return {"cicd.pipeline.name": ", ".join(specs), "cicd.pipeline.run.id": run}


def run_result(outcome: str) -> dict[str, str]:
    """Return the attribute that a run has when it has ended."""
    return {"cicd.pipeline.result": RESULTS.get(outcome, "")}


def run_error(outcome: str) -> str:
    """Return the message of a run's status; empty if it is in progress or has succeeded."""
    if outcome in ("succeeded", "running"):
        return ""
    return f"the run {'was cancelled' if outcome == 'cancelled' else outcome}"


def stage_attributes(stage: str, title: str, spec: str, region: str, *, is_test: bool) -> dict[str, str]:
    """Return the attributes of a stage that are known when it starts; those without a value are empty."""
    return {
        "cicd.pipeline.task.name": title,
        "cicd.pipeline.task.run.id": stage,
        "cicd.pipeline.task.type": "test" if is_test else "build",
        "cloud.region": region,
        "imagepipe.spec": spec,
    }


def stage_result(status: str, code: str) -> dict[str, str]:
    """Return the attributes that a stage has when it has ended; those without a value are empty."""
    return {"cicd.pipeline.task.run.result": RESULTS.get(status, ""), "error.type": code}


def nanoseconds(time: datetime) -> int:
    """Return a time as OpenTelemetry counts it, in whole microseconds since 1970."""
    return int(time.timestamp() * 1e6) * 1000


def run_name(specs: Sequence[str]) -> str:
    """Return the name of the span of a run."""
    return f"BUILD {', '.join(specs)}"[:200]


def trace_id(run: str) -> str:
    """Return the id of the trace of a run: 32 hexadecimal digits, the same each time it is exported."""
    return _id(run, "trace", 32)


def span_id(run: str, stage: str | None = None) -> str:
    """Return the id of the span of a stage, or of the run itself: 16 hexadecimal digits."""
    return _id(run, "run" if stage is None else f"stage {stage}", 16)


def _id(run: str, what: str, digits: int) -> str:
    return hashlib.sha256(f"imagepipe {run} {what}".encode()).hexdigest()[:digits]
