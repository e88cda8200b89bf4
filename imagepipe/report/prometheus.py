"""The report of a run as metrics, for the textfile collector of Prometheus' node exporter, or a push gateway.

Format: "Exposition formats" of Prometheus' documentation. No label has the run's id, because each run would be a
new time series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imagepipe.report.model import RunReport

PREFIX = "imagepipe_last_run_"


def prometheus(report: RunReport) -> str:
    """Return the metrics as text."""
    specs = report.by_spec()
    failed = {stage.spec for stage in report.stages if stage.status == "failed" and not stage.is_optional}
    by_spec = {spec: report.span_of(stages) for spec, stages in specs.items() if spec}
    is_over = report.outcome not in ("running", "died")
    lines = [
        *_metric("success", "1 if the run succeeded.", {"": float(report.outcome == "succeeded")}),
        *_metric("start_time_seconds", "Start of the run.", {"": report.started.timestamp()}),
        *_metric("duration_seconds", "Duration of the run.", {"": report.seconds}),
        *_metric("held_resources", "Resources that could not be deleted.", {"": float(len(report.held))}),
        *_metric("tests_failed", "Tests that failed.", {"": float(_count(report, "failed"))}),
        *_metric("tests_passed", "Tests that passed.", {"": float(_count(report, "succeeded"))}),
    ]
    if is_over:
        good = {_labels(spec=spec): float(spec not in failed and report.outcome == "succeeded") for spec in by_spec}
        lines += _metric("spec_success", "1 if the spec's images were made.", good)
    durations = {_labels(spec=spec): span[1] for spec, span in by_spec.items() if span}
    lines += _metric("spec_duration_seconds", "Duration from a spec's first stage to its last.", durations)
    stages = {
        _labels(spec=stage.spec, stage=stage.name): stage.seconds
        for stage in report.stages
        if stage.seconds is not None
    }
    lines += _metric("stage_duration_seconds", "Duration of a stage.", stages)
    return "".join(f"{line}\n" for line in lines)


def _count(report: RunReport, status: str) -> int:
    return sum(stage.status == status for stage in report.tests)


def _metric(name: str, help_text: str, values: Mapping[str, float]) -> Iterator[str]:
    if values:
        yield f"# HELP {PREFIX}{name} {help_text}"
        yield f"# TYPE {PREFIX}{name} gauge"
    for labels, value in values.items():
        yield f"{PREFIX}{name}{labels} {value:.17g}"


def _labels(**values: str) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
