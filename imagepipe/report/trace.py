"""The report of a run in Chrome's Trace Event Format, for Perfetto (ui.perfetto.dev) and `chrome://tracing`.

Format: "Trace Event Format", the document of the Chromium project. A spec is a process, and stages that ran at the same
time are in different threads of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from imagepipe.report.model import RunReport, StageReport


def trace(report: RunReport) -> dict[str, Any]:
    """Return the trace. Times are in microseconds since the start of the run."""
    return {
        "displayTimeUnit": "ms",
        "otherData": {"run": report.run, "outcome": report.outcome, "started": report.started.isoformat()},
        "traceEvents": list(_events(report)),
    }


def _events(report: RunReport) -> Iterator[dict[str, Any]]:
    critical = set(report.critical_path)
    processes: dict[str, int] = {}
    lanes: dict[str, list[float]] = {}
    for stage in report.stages:
        if stage.start is None:
            continue
        if stage.spec not in processes:
            processes[stage.spec] = len(processes) + 1
            yield _name("process_name", processes[stage.spec], 0, stage.spec or report.run)
        seconds = report.elapsed(stage) or 0.0
        ends = lanes.setdefault(stage.spec, [])
        lane = next((number for number, end in enumerate(ends) if end <= stage.start), len(ends))
        if lane == len(ends):
            ends.append(0.0)
            yield _name("thread_name", processes[stage.spec], lane, f"stages {lane + 1}")
        ends[lane] = stage.start + seconds
        place = {"pid": processes[stage.spec], "tid": lane}
        yield {
            "ph": "X",
            "name": stage.title,
            "cat": "stage",
            **place,
            **_time(stage.start, seconds),
            "args": _details(stage, is_critical=stage.name in critical),
        }
        for span in stage.spans:
            start = max(stage.start, span.start)
            length = min(span.start + span.seconds, stage.start + seconds) - start
            if length > 0:
                yield {"ph": "X", "name": span.label, "cat": "span", **place, **_time(start, length)}


def _details(stage: StageReport, *, is_critical: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"stage": stage.name, "status": stage.status, "critical": is_critical}
    return found | {name: text for name, text in (("error", stage.error), ("region", stage.region)) if text}


def _time(start: float, seconds: float) -> dict[str, int]:
    return {"ts": round(start * 1e6), "dur": round(seconds * 1e6)}


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}
