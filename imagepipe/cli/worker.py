"""`imagepipe worker`: bake specs for builds on Temporal."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from queue import Full, Queue
from threading import Thread

import click

from imagepipe.cli import streams
from imagepipe.cli.pass_options import pass_options
from imagepipe.cli.run_options import DurationType
from imagepipe.dataclass import dataclass
from imagepipe.errors import UsageError
from imagepipe.extras import command_for_extra
from imagepipe.names import DEFAULT_QUEUE, QUEUE_NAME
from imagepipe.temporal.connection import NAMESPACE, Server

BAKES_AT_ONCE = 4
MOST_LINES = 10_000
"""Lines of the bakes' output that wait for a reader."""


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic only in its stubs
    """An address to listen on: `HOST:PORT`, or `PORT` for this machine alone."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, _, port = str(value).rpartition(":")
        if not port.isdigit() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is not an address: write HOST:PORT, or PORT", param, ctx)
        return host or "127.0.0.1", int(port)


@dataclass(frozen=True, slots=True)
class WorkerCommandOptions:
    """Options of `imagepipe worker`."""

    server: str
    namespace: str
    queue: str
    bakes_at_once: int
    bakes_per_minute: float | None
    grace: timedelta
    health: tuple[str, int] | None
    metrics: tuple[str, int] | None


@click.command(
    epilog="""\b
Examples:
  imagepipe worker --temporal localhost:7233
  imagepipe worker --temporal temporal.internal:7233 --namespace images --queue account-a
  imagepipe worker --temporal localhost:7233 --bakes 10 --health 0.0.0.0:8080 --metrics 0.0.0.0:9090
"""
)
@click.option(
    "--temporal",
    "server",
    metavar="HOST:PORT",
    required=True,
    envvar="IMAGEPIPE_TEMPORAL",
    help="Take work from this server. TLS and an API key are set as for Temporal's own tools: TEMPORAL_TLS, "
    "TEMPORAL_TLS_CLIENT_CERT_PATH, TEMPORAL_API_KEY.",
)
@click.option("--namespace", metavar="NAME", default=NAMESPACE, show_default=True, help="Namespace of the builds.")
@click.option(
    "--queue",
    metavar="NAME",
    default=DEFAULT_QUEUE,
    show_default=True,
    help="Take bakes from this queue: `engine: {queue: NAME}` in a spec. One for each account or VPC.",
)
@click.option(
    "--bakes",
    "bakes_at_once",
    type=click.IntRange(1, 1000),
    default=BAKES_AT_ONCE,
    show_default=True,
    help="Bakes that run at once in this worker.",
)
@click.option(
    "--bakes-per-minute",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Bakes that all workers of the queue begin in a minute, together.  [no limit]",
)
@click.option(
    "--grace",
    type=DurationType(),
    default="60s",
    show_default=True,
    help="After SIGTERM, wait this long for bakes to end. Other workers resume the rest.",
)
@click.option(
    "--health", type=AddressType(), metavar="[HOST:]PORT", help="Answer GET /healthz: 200, or 503 without the server."
)
@click.option("--metrics", type=AddressType(), metavar="[HOST:]PORT", help="Serve metrics for Prometheus at /metrics.")
@pass_options(WorkerCommandOptions)
def worker(options: WorkerCommandOptions) -> int:
    """Bake specs for `imagepipe build --engine temporal://HOST:PORT`, until SIGTERM or Ctrl-C.

    The worker needs the credentials of the account that it bakes in, and access to the shared state of the builds.
    Specs and their files come from there. Sensitive variables come from the worker's environment.
    """
    check_installed()
    if not re.fullmatch(QUEUE_NAME, options.queue):
        raise UsageError(
            f"--queue {options.queue!r}: no spec can name this queue",
            hint="use letters, digits, '.', '_' and '-', at most 200 of them",
        )
    from imagepipe.temporal.worker import WorkerOptions, run_worker

    command = [sys.executable, "-m", "imagepipe.cli.main", "run-bake"]
    wanted = WorkerOptions(
        Server.at(options.server, options.namespace),
        options.queue,
        options.bakes_at_once,
        options.bakes_per_minute,
        options.grace,
        options.health,
        options.metrics,
    )
    with printer(click.echo) as print_line:
        asyncio.run(run_worker(wanted, command, os.environ, print_line))
    return 0


@contextmanager
def printer(echo: Callable[[str], object]) -> Iterator[Callable[[str], None]]:
    """Print lines in a thread: a paused terminal, or a pipe that nobody reads, must not stop the heartbeats of bakes.

    Lines are dropped while too many of them wait.
    """
    lines: Queue[str | None] = Queue(MOST_LINES)

    def work() -> None:
        while (line := lines.get()) is not None:
            echo(line)

    def put(line: str) -> None:
        with suppress(Full):
            lines.put_nowait(line)

    thread = Thread(target=work, name="printer", daemon=True)
    thread.start()
    try:
        yield put
    finally:
        streams.hurry()
        with suppress(Full):
            lines.put(None, timeout=2 * streams.PATIENCE_SECONDS)
            thread.join(2 * streams.PATIENCE_SECONDS)


def check_installed() -> None:
    """Raise UsageError if Temporal's library is not installed."""
    from importlib.util import find_spec

    if find_spec("temporalio") is None:
        raise UsageError(
            "builds on Temporal need Temporal's library, and it is not installed",
            hint=command_for_extra("temporal"),
        )
