"""Send the spans of a build to an OpenTelemetry collector while it runs, each as soon as it has ended.

They have the ids and attributes of `imagepipe report --format otlp`, except those that only the whole run shows, such
as the critical path. The SDK reads its own environment variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_RESOURCE_ATTRIBUTES
and others: opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from imagepipe import __version__
from imagepipe.engine import events as ev
from imagepipe.errors import UsageError
from imagepipe.report.otlp import (
    CONVENTIONS,
    TRACEPARENT,
    nanoseconds,
    run_attributes,
    run_error,
    run_name,
    run_result,
    span_id,
    stage_attributes,
    stage_result,
    trace_id,
)

FLUSH_SECONDS = 10
"""Time for the last spans to reach the collector when the build has ended."""


class LiveTraces:
    """A sink of events that makes spans of them. The engine calls it for one event after the other."""

    def __init__(self, exporter: SpanExporter, traceparent: str = "") -> None:
        """`traceparent` is the span that the run belongs to, if there is one."""
        self._ids = _Ids()
        resource = Resource.create({"service.name": "imagepipe", "service.version": __version__})
        # Every span, whatever OTEL_TRACES_SAMPLER says: a build is one trace, and `--otlp` asks for it.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("imagepipe", __version__, CONVENTIONS)
        self._parent = TRACEPARENT.fullmatch(traceparent)
        self._planned: dict[str, ev.StagePlanned] = {}
        self._run: Span | None = None
        self._open: dict[str, Span] = {}

    def __call__(self, event: ev.Event) -> None:
        match event:
            case ev.RunStarted():
                self._start_run(event)
            case ev.StagePlanned():
                self._planned[event.stage] = event
            case ev.StageStarted():
                self._start_stage(event)
            case ev.Span(stage=stage) if stage in self._open:
                self._open[stage].add_event(event.label, {"seconds": event.seconds}, nanoseconds(event.time))
            case ev.StageFinished():
                self._end_stage(event.stage, event.time, "succeeded")
            case ev.StageFailed():
                self._end_stage(event.stage, event.time, "failed", error=event.error, code=event.code)
            case ev.RunFinished():
                self._end_run(event)

    def close(self) -> bool:
        """End the spans of a run that did not end, and send what was not sent yet; return whether there was time."""
        for span in (*self._open.values(), *((self._run,) if self._run is not None else ())):
            span.set_status(Status(StatusCode.ERROR, "the run stopped"))
            span.end()
        is_flushed = self._provider.force_flush(FLUSH_SECONDS * 1000)
        self._provider.shutdown()
        return is_flushed

    def _start_run(self, event: ev.RunStarted) -> None:
        self._ids.trace, self._ids.span = trace_id(event.run), span_id(event.run)
        context = None
        if self._parent is not None:
            outer = SpanContext(
                int(self._parent[1], 16), int(self._parent[2], 16), is_remote=True, trace_flags=TraceFlags(1)
            )
            context = set_span_in_context(NonRecordingSpan(outer))
        attributes = run_attributes(event.run, event.specs)
        self._run = self._started(run_name(event.specs), context, event.time, attributes)

    def _start_stage(self, event: ev.StageStarted) -> None:
        if self._run is None:
            return
        planned = self._planned.get(event.stage)
        spec, region, is_test = (planned.spec, planned.region, planned.is_test) if planned else ("", "", False)
        attributes = stage_attributes(event.stage, event.title, spec, region, is_test=is_test)
        self._ids.span = span_id(event.run, event.stage)
        self._open[event.stage] = self._started(event.title, set_span_in_context(self._run), event.time, attributes)

    def _started(self, name: str, context: Any, time: datetime, attributes: Mapping[str, str]) -> Span:
        span = self._tracer.start_span(
            name, context, kind=SpanKind.INTERNAL, attributes=_present(attributes), start_time=nanoseconds(time)
        )
        assert isinstance(span, Span), "the sampler of this provider records every span"
        return span

    def _end_stage(self, stage: str, time: datetime, status: str, *, error: str = "", code: str = "") -> None:
        if (span := self._open.pop(stage, None)) is None:
            return
        span.set_attributes(_present(stage_result(status, code)))
        span.set_status(Status(StatusCode.ERROR, error) if error else Status(StatusCode.OK))
        span.end(nanoseconds(time))

    def _end_run(self, event: ev.RunFinished) -> None:
        if self._run is None:
            return
        for stage in [*self._open]:
            self._end_stage(stage, event.time, "cancelled", error="the run ended")
        self._run.set_attributes(run_result(event.outcome))
        error = run_error(event.outcome)
        self._run.set_status(Status(StatusCode.ERROR, error) if error else Status(StatusCode.OK))
        self._run.end(nanoseconds(event.time))
        self._run = None


class _Ids(IdGenerator):
    """Hands out the ids that the report of the run has, instead of random ones."""

    trace = span = "1"

    def generate_trace_id(self) -> int:
        return int(self.trace, 16)

    def generate_span_id(self) -> int:
        return int(self.span, 16)


class _Counting(SpanExporter):
    """An exporter that counts the batches that did not arrive."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:  # such as an address that is no address
            self.lost += len(spans)
            raise
        self.lost += len(spans) * (result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)


@contextmanager
def live_traces(traceparent: str, say: Callable[[str], None]) -> Iterator[LiveTraces]:
    """Send spans to the collector that the environment names; one that does not answer delays nothing but the end.

    Says how many spans did not arrive. Raises UsageError for an environment that the SDK refuses.
    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it would print a traceback for each failed attempt
    try:
        exporter = _Counting(OTLPSpanExporter())
        traces = LiveTraces(exporter, traceparent)
    except ValueError as error:
        raise UsageError(
            f"--otlp: the OTEL_ variables of the environment: {error}", hint="unset the variable"
        ) from error
    try:
        yield traces
    finally:
        is_flushed = traces.close()
        if exporter.lost or not is_flushed:
            count = f"{exporter.lost} spans" if exporter.lost else "spans"
            say(f"note: {count} did not reach the OpenTelemetry collector: check OTEL_EXPORTER_OTLP_ENDPOINT")


def _present(attributes: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes that have a value."""
    return {key: value for key, value in attributes.items() if value}
