"""The traces of a build for OpenTelemetry: `--otlp`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from imagepipe.errors import UsageError
from imagepipe.extras import command_for_extra

if TYPE_CHECKING:
    from imagepipe.engine.events import Sink


@contextmanager
def live_traces() -> Iterator[Sink]:
    """Send spans while the block runs. Raises UsageError without the extra `otlp`."""
    check_extra()
    from imagepipe.report.otlp_live import live_traces

    with live_traces(os.environ.get("TRACEPARENT", "")) as traces:
        yield traces


def check_extra() -> None:
    """Raise UsageError if the libraries of the extra `otlp` are not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"--otlp needs a library that is not installed: {error.name}", hint=command_for_extra("otlp")
        ) from error
