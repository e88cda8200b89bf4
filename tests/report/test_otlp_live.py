"""The spans of a build as a collector gets them while the build runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from imagepipe.cli.main import main
from imagepipe.cli.otlp import LIVE
from imagepipe.engine import events as ev
from imagepipe.errors import UsageError
from imagepipe.report.otlp import otlp
from imagepipe.report.otlp_live import live_traces
from tests.report.runs import BEGINNING, FAILED, SUCCEEDED, failed, succeeded

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector(BaseHTTPRequestHandler):
    """Takes traces as an OpenTelemetry collector does, and keeps their spans."""

    spans: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        request = ExportTraceServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/traces"
        self.spans.extend(
            span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
        )
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Return the spans that a collector on this computer has got."""
    Collector.spans.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        try:
            yield Collector.spans
        finally:
            server.shutdown()
            thread.join()


def _send(events: list[ev.AnyEvent], traceparent: str = "") -> list[str]:
    """Send the events; return the lines that were said about it."""
    said: list[str] = []
    with live_traces(traceparent, said.append) as sink:
        for event in events:
            sink(event)
    return said


@pytest.mark.parametrize(("events", "report"), [(SUCCEEDED, succeeded), (FAILED, failed)])
@pytest.mark.parametrize("parent", ["", PARENT])
def test_the_collector_gets_the_spans_that_the_report_has(
    spans: list[Any], events: list[ev.AnyEvent], report: Any, parent: str
) -> None:
    _send(events, parent)
    wanted = otlp(report(), parent)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    found = {span.span_id.hex(): span for span in spans}
    assert found.keys() == {span["spanId"] for span in wanted}
    for span in wanted:
        got = found[span["spanId"]]
        assert got.trace_id.hex() == span["traceId"]
        assert got.parent_span_id.hex() == span.get("parentSpanId", "")
        assert got.name == span["name"]
        assert got.status.code == span["status"].get("code", 0)
        assert str(got.start_time_unix_nano) == span["startTimeUnixNano"]
        assert len(got.events) == len(span.get("events", []))
        given = {each.key: each.value.string_value for each in got.attributes}
        later = {"imagepipe.critical", "imagepipe.images", "vcs.ref.head.revision"}
        expected = {each["key"]: each["value"]["stringValue"] for each in span["attributes"]}
        assert given == {key: value for key, value in expected.items() if key not in later}


def test_a_span_arrives_while_the_run_still_runs(spans: list[Any]) -> None:
    with live_traces("", print) as sink:
        for event in BEGINNING:
            sink(event)
        until = time.monotonic() + 600
        while not spans and time.monotonic() < until:
            time.sleep(0.02)
        assert {span.name for span in spans} <= {"make a key pair", "find the source image", "launch t3.small"}
        assert spans


def test_a_run_that_stops_in_the_middle_still_sends_its_spans(spans: list[Any]) -> None:
    _send(BEGINNING)
    assert {span.name: span.status.message for span in spans}["BUILD web"] == "the run stopped"


def test_a_collector_that_does_not_answer_breaks_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    (said,) = _send(SUCCEEDED)
    assert "did not reach the OpenTelemetry collector" in said
    assert capfd.readouterr() == ("", "")


def test_an_address_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense")
    (said,) = _send(SUCCEEDED)
    assert "check OTEL_EXPORTER_OTLP_ENDPOINT" in said


@pytest.mark.parametrize("name", ["OTEL_TRACES_SAMPLER"])
@pytest.mark.parametrize("value", ["always_off", "parentbased_always_off", "traceidratio"])
def test_every_span_is_sent_whatever_the_sampler(
    spans: list[Any], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
    assert _send(SUCCEEDED) == []
    assert spans


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_BSP_MAX_QUEUE_SIZE", "1"), ("OTEL_BSP_SCHEDULE_DELAY", "0"), ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc")],
)
def test_an_environment_that_the_sdk_refuses_is_an_error_before_the_run(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="OTEL_"):
        _send(SUCCEEDED)


@pytest.mark.parametrize("command", [["build", "web.yaml"], ["resume", "latest"]])
def test_without_the_extra_nothing_begins_and_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.delitem(sys.modules, LIVE)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    refused = CliRunner().invoke(main, [*command, "--otlp"], standalone_mode=False)
    assert isinstance(refused.exception, UsageError)
    assert "--otlp needs a library that is not installed: opentelemetry.sdk.trace" in str(refused.exception)
    assert "imagepipe-ami[otlp]" in str(refused.exception.hint)
