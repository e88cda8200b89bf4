from __future__ import annotations

import json
import re
from typing import Any

from imagepipe.report.otlp import otlp
from tests.report.runs import failed, succeeded

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def _spans(request: dict[str, Any]) -> list[dict[str, Any]]:
    (resource,) = json.loads(json.dumps(request))["resourceSpans"]
    (scope,) = resource["scopeSpans"]
    spans: list[dict[str, Any]] = scope["spans"]
    return spans


def _attributes(span: dict[str, Any]) -> dict[str, str]:
    return {each["key"]: each["value"]["stringValue"] for each in span["attributes"]}


def test_the_run_is_a_span_and_each_stage_that_ran_a_span_within_it() -> None:
    report = failed()
    run, *stages = _spans(otlp(report))
    assert _attributes(run)["cicd.pipeline.run.id"] == report.run
    assert _attributes(run)["cicd.pipeline.result"] == "failure"
    assert "parentSpanId" not in run
    assert len(stages) == sum(stage.start is not None for stage in report.stages)
    for span in stages:
        assert span["parentSpanId"] == run["spanId"]
        assert int(run["startTimeUnixNano"]) <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])


def test_a_failed_stage_has_its_error() -> None:
    errors = [span["status"]["message"] for span in _spans(otlp(failed()))[1:] if span["status"].get("code") == 2]
    assert errors == ["step 'packages' (web.yaml:7): exit code 100"]


def test_ids_are_those_of_otlp_and_the_same_in_every_export() -> None:
    spans = _spans(otlp(succeeded()))
    assert all(re.fullmatch("[0-9a-f]{32}", span["traceId"]) for span in spans)
    assert all(re.fullmatch("[0-9a-f]{16}", span["spanId"]) for span in spans)
    assert len({span["spanId"] for span in spans}) == len(spans)
    assert otlp(succeeded()) == otlp(succeeded())


def test_a_run_in_ci_belongs_to_the_job_that_the_environment_names() -> None:
    run, *_ = _spans(otlp(succeeded(), PARENT))
    assert (run["traceId"], run["parentSpanId"]) == (PARENT[3:35], PARENT[36:52])


def test_a_parent_that_is_not_valid_is_ignored() -> None:
    for parent in ("nonsense", PARENT.upper(), f"00-{'0' * 32}-{'1' * 16}-01", PARENT + "-more"):
        assert otlp(succeeded(), parent) == otlp(succeeded())
