"""A worker: takes bakes from a queue of a Temporal server until it is told to stop."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.runtime import PrometheusConfig, Runtime
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker, WorkerDeploymentConfig

from imagepipe import __version__
from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError, UsageError
from imagepipe.temporal import messages
from imagepipe.temporal import workflows as workflow_code
from imagepipe.temporal.activities import Bakes
from imagepipe.temporal.connection import Server, connect, quiet_runtime
from imagepipe.temporal.health import serve_health
from imagepipe.temporal.metrics import Metrics
from imagepipe.temporal.workflows import BakeWorkflow, BuildWorkflow

DEPLOYMENT = "imagepipe"
"""Name of the worker deployment, the same on all queues: the bakes of a build may be on other queues than itself."""
HEARTBEAT_THROTTLE = timedelta(seconds=3)
"""Longest time for which Temporal's library keeps a heartbeat back, and with it a cancel."""
PASSING = frozenset(
    {
        RPCStatusCode.NOT_FOUND,  # until the server knows the version
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,  # many workers start at once
        RPCStatusCode.ABORTED,
    }
)
"""Errors after which the worker asks again to make its version the current one."""
CHECK_EVERY = 10.0
"""Seconds between checks that the server can be reached."""
TO_LET_GO = timedelta(seconds=30)
"""Time that the worker has for reporting the bakes that it let go of."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works."""

    server: Server
    queue: str
    bakes_at_once: int
    bakes_per_minute: float | None
    """Bakes that all workers of the queue begin in a minute; None for no limit."""
    grace: timedelta
    """Time for bakes to end after a SIGTERM. Those that run longer are resumed by other workers."""
    health: tuple[str, int] | None
    """Address for `GET /healthz`."""
    metrics: tuple[str, int] | None
    """Address for Prometheus."""


def code_version() -> str:
    """Return the version of the workflows: another one whenever their code changes."""
    files = [Path(str(module.__file__)) for module in (workflow_code, messages)]
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:8]
    return f"{__version__}-{digest}"


def worker_name() -> str:
    """Return a name that tells workers apart, also several on one host."""
    return f"{os.getpid()}@{socket.gethostname()}"


async def run_worker(
    options: WorkerOptions, command: Sequence[str], environment: Mapping[str, str], print_line: Callable[[str], None]
) -> None:
    """Work until SIGTERM or SIGINT. `command` starts the process of a bake, as `Bakes` says. Raises CloudError."""
    logging.getLogger("temporalio").setLevel(logging.ERROR)  # it warns of each failed bake, with a traceback
    runtime = _runtime(options)
    name = worker_name()
    client = await connect(options.server, environment, identity=name, runtime=runtime)
    metrics = Metrics(runtime.metric_meter)
    bakes = Bakes(command, name, print_line, metrics)
    version = code_version()
    common: dict[str, Any] = {
        "max_heartbeat_throttle_interval": HEARTBEAT_THROTTLE,
        "default_heartbeat_throttle_interval": HEARTBEAT_THROTTLE,
        "graceful_shutdown_timeout": options.grace + TO_LET_GO,
        "deployment_config": WorkerDeploymentConfig(WorkerDeploymentVersion(DEPLOYMENT, version), True),
        "max_concurrent_activities": options.bakes_at_once,
    }
    workers = [
        Worker(
            client,
            task_queue=options.queue,
            workflows=[BuildWorkflow, BakeWorkflow],
            activities=[bakes.bake],
            max_task_queue_activities_per_second=options.bakes_per_minute and options.bakes_per_minute / 60,
            **common,
        ),
        Worker(client, task_queue=f"{options.queue}{messages.CLEAN_SUFFIX}", activities=[bakes.clean], **common),
    ]
    reach = _Reach(client, print_line)
    told, told_twice = asyncio.Event(), asyncio.Event()

    def health() -> tuple[bool, Mapping[str, Any]]:
        facts = {"worker": name, "queue": options.queue, "version": version, "bakes": metrics.running}
        return reach.is_well and not told.is_set(), facts

    with _health_of(options, health), _told_by_signals(told, told_twice):
        serving = asyncio.create_task(_serve(workers, options.server))
        checking = asyncio.create_task(reach.keep_checking())
        try:
            await _make_current(client, options.server, version, serving)
            print_line(f"worker {name}: bakes from queue '{options.queue}' of {options.server}, version {version}")
            stopped = asyncio.create_task(told.wait())
            await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not serving.done():
                await _stop(workers, told_twice, bakes, metrics, options.grace, print_line)
            await serving
        finally:
            checking.cancel()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


async def _serve(workers: Sequence[Worker], server: Server) -> None:
    """Work until the workers are stopped. Raises CloudError."""
    try:
        await asyncio.gather(*(each.run() for each in workers))
    except RuntimeError as error:
        raise CloudError(
            f"taking bakes from {server}: {str(error).partition(': Status {')[0]}",
            code="TemporalRefused",
            hint="check that the namespace exists, and that the credentials may use it",
        ) from error


async def _stop(
    workers: Sequence[Worker],
    told_twice: asyncio.Event,
    bakes: Bakes,
    metrics: Metrics,
    grace: timedelta,
    print_line: Callable[[str], None],
) -> None:
    """Take no more bakes, wait for those that run, and let go of them when the time is over, or at a second signal."""
    running = metrics.running
    print_line(
        f"stopping: no more bakes; {running} running, for up to {grace.total_seconds():g} s; again to let go now"
    )
    stopping = asyncio.create_task(_shut_down(workers))
    hurry = asyncio.create_task(told_twice.wait())
    await asyncio.wait([stopping, hurry], timeout=grace.total_seconds(), return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not stopping.done():
        if metrics.running:
            print_line(f"letting go of {metrics.running} bake{'s' * (metrics.running != 1)}; other workers resume them")
        bakes.stop()
    await stopping


async def _shut_down(workers: Sequence[Worker]) -> None:
    await asyncio.gather(*(each.shutdown() for each in workers))


class _Reach:
    """Checks of whether the server can be reached."""

    def __init__(self, client: Client, print_line: Callable[[str], None]) -> None:
        self._client, self._print = client, print_line
        self.is_well = True

    async def keep_checking(self) -> None:
        while True:
            try:
                is_well = await self._client.service_client.check_health(timeout=timedelta(seconds=5))
            except RPCError:
                is_well = False
            if is_well != self.is_well:
                self._print("the server answers again" if is_well else "the server does not answer; trying again")
            self.is_well = is_well
            await asyncio.sleep(CHECK_EVERY)


def _runtime(options: WorkerOptions) -> Runtime:
    if options.metrics is None:
        return quiet_runtime()
    host, port = options.metrics
    try:
        prometheus = PrometheusConfig(f"{host}:{port}", counters_total_suffix=True, durations_as_seconds=True)
        return quiet_runtime(prometheus)
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"serving metrics on {host}:{port}: {error}", hint="choose another port") from error


async def _make_current(client: Client, server: Server, version: str, serving: asyncio.Task[None]) -> None:
    """Let new builds begin with this version of the workflows; builds that run stay on theirs. Raises CloudError.

    The server knows the version as soon as the worker has asked for work.
    """
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=server.namespace,
        deployment_name=DEPLOYMENT,
        build_id=version,
        identity=client.identity,
        ignore_missing_task_queues=True,
    )
    for pause in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, None):
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
            return
        except RPCError as error:
            if serving.done():
                await serving
            if pause is None or error.status not in PASSING:
                raise CloudError(
                    f"making version {version} current in namespace {server.namespace}: {error.message}",
                    code=error.status.name,
                    hint="the server must be 1.28 or newer, with worker deployments, and the namespace must exist",
                ) from error
            await asyncio.sleep(pause)


@contextmanager
def _health_of(options: WorkerOptions, health: Callable[[], tuple[bool, Mapping[str, Any]]]) -> Iterator[None]:
    if options.health is None:
        yield
        return
    with serve_health(*options.health, health):
        yield


@contextmanager
def _told_by_signals(told: asyncio.Event, told_twice: asyncio.Event) -> Iterator[None]:
    """Set the first event at the first SIGINT or SIGTERM, and the other one at the second."""

    def tell() -> None:
        (told_twice if told.is_set() else told).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
