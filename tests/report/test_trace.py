"""The trace: complete events that never overlap within a thread, because a viewer would draw nonsense."""

from __future__ import annotations

import json

from imagepipe.report.trace import trace
from tests.report.runs import failed, succeeded


def test_stages_are_complete_events_in_microseconds() -> None:
    events = trace(failed())["traceEvents"]
    launch = next(event for event in events if event["name"] == "launch t3.small")
    assert (launch["ph"], launch["ts"], launch["dur"]) == ("X", 1_000_000, 10_000_000)
    assert launch["args"] == {"stage": "launch", "status": "succeeded", "critical": True, "region": "us-east-1"}
    failure = next(event for event in events if event["name"] == "packages")
    assert failure["args"]["error"] == "step 'packages' (web.yaml:7): exit code 100"
    boot = next(event for event in events if event["name"] == "boot")
    assert (boot["ts"], boot["dur"], boot["tid"]) == (2_000_000, 8_000_000, launch["tid"])


def test_stages_that_run_at_once_are_in_different_threads() -> None:
    events = [event for event in trace(succeeded())["traceEvents"] if event.get("cat") == "stage"]
    for one in events:
        for other in events:
            if one is not other and (one["pid"], one["tid"]) == (other["pid"], other["tid"]):
                assert one["ts"] + one["dur"] <= other["ts"] or other["ts"] + other["dur"] <= one["ts"]
    assert len({event["tid"] for event in events}) == 2


def test_processes_and_threads_have_names_and_the_trace_is_json() -> None:
    found = json.loads(json.dumps(trace(succeeded())))
    names = {event["args"]["name"] for event in found["traceEvents"] if event["ph"] == "M"}
    assert names == {"web", "stages 1", "stages 2"}
    assert found["displayTimeUnit"] == "ms"
