"""The client of a build on Temporal: starts it, or joins one that runs, and follows it to its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
)
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.converter import value_to_type
from temporalio.exceptions import ApplicationError, CancelledError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from imagepipe.dataclass import dataclass
from imagepipe.errors import CloudError, UsageError
from imagepipe.temporal import messages
from imagepipe.temporal.connection import Server, connect
from imagepipe.temporal.messages import BuildRequest, BuildResult, Progress

PREFIX = "imagepipe-"
"""Begin of the ids of builds."""
EVERY = 1.0
"""Seconds between looks at a build."""
ANSWER = timedelta(seconds=5)
"""Time for one answer."""
ATTEMPTS = 20
"""Attempts to look for a build on a server that restarts."""
QUIET = 15.0
"""Seconds without news from any worker after which the client says so."""
WORKFLOWS, ACTIVITIES = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY
PASSING = frozenset({RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED})
"""Errors of a server that restarts, or of a build that no worker answers for."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a build, as the client saw it."""

    result: BuildResult
    is_cancelled: bool = False
    is_detached: bool = False
    """True if the client left before the end of the build."""


async def build(
    server: Server,
    environment: Mapping[str, str],
    build_id: str,
    request: Callable[[], BuildRequest],
    queues: Mapping[str, str],
    print_line: Callable[[str], None],
) -> End:
    """Start a build and follow it; join the one of this id if there is one. Raises CloudError, UsageError.

    `request` is called only if the build is to be started. `queues` has the queue of each spec; the workers of the
    first one run the build itself. The first Ctrl-C or SIGTERM cancels the build, and every
    bake cleans up; the second one leaves it alone.
    """
    client = await connect(server, environment)
    id = f"{PREFIX}{build_id}"
    handle: WorkflowHandle[object, BuildResult] = client.get_workflow_handle(id, result_type=BuildResult)
    follower = _Follower(client, server, handle, queues, print_line)
    if await _exists(handle, print_line):
        print_line(f"build {build_id} exists already: following it")
        with follower.counting_signals():
            return await follower.follow()
    wanted = request()
    with follower.counting_signals():  # a Ctrl-C while the build starts must cancel it
        try:
            await client.start_workflow(
                messages.BUILD,
                wanted,
                id=id,
                task_queue=next(iter(queues.values())),
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            )
        except WorkflowAlreadyStartedError:
            pass  # by another client, and ended already
        except RPCError as error:
            raise _error(f"starting build {build_id} on {server}", error) from error
        return await follower.follow()


async def _exists(handle: WorkflowHandle[object, BuildResult], print_line: Callable[[str], None]) -> bool:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await handle.describe(rpc_timeout=ANSWER)
            return True
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return False
            if error.status not in PASSING or attempt == ATTEMPTS:
                raise _error("looking for the build", error) from error
            print_line(f"the server does not answer: {error.message}; trying again")
            await asyncio.sleep(EVERY)
    raise AssertionError("the last attempt returns or raises")


def _error(operation: str, error: RPCError) -> CloudError:
    hint = "check that the namespace exists, and that the server is up"
    return CloudError(f"{operation}: {error.message}", code=error.status.name, hint=hint)


class _Follower:
    """Prints the news of a build until it ends."""

    def __init__(
        self,
        client: Client,
        server: Server,
        handle: WorkflowHandle[object, BuildResult],
        queues: Mapping[str, str],
        print_line: Callable[[str], None],
    ) -> None:
        self._client, self._server, self._handle, self._queues = client, server, handle, queues
        self._print = print_line
        self._seen: dict[str, Progress] = {}
        self._signals = 0
        self._is_away = self._is_cancelled = False
        self._last_news = self._last_check = 0.0
        self._lonely: set[str] = set()
        """The queues without workers, of which the user was told."""

    async def follow(self) -> End:
        loop = asyncio.get_running_loop()
        self._last_news = self._last_check = loop.time()
        while True:
            if self._signals > 1:
                return End(self._so_far(), is_cancelled=self._is_cancelled, is_detached=True)
            if self._signals and not self._is_cancelled:
                self._print("cancelling: every bake stops and cleans up; again to leave it alone")
                self._is_cancelled = await self._cancel()
            status = await self._status()
            if status not in (None, WorkflowExecutionStatus.RUNNING):
                if end := await self._end():
                    return end
            elif status is not None:
                await self._look(loop.time())
            await asyncio.sleep(EVERY)

    async def _status(self) -> WorkflowExecutionStatus | None:
        """Return the state of the build; None while the server cannot be reached."""
        try:
            found = (await self._handle.describe(rpc_timeout=ANSWER)).status
        except RPCError as error:
            self._note_silence(error)
            return None
        if self._is_away:
            self._print("the server answers again")
        self._is_away = False
        return found

    def _note_silence(self, error: RPCError) -> None:
        """Say once that the server does not answer. Raises CloudError for an error that does not pass."""
        if error.status not in PASSING:
            raise _error("following the build", error) from error
        if not self._is_away:
            self._print(f"the server {self._server.address} does not answer: {error.message}; trying again")
        self._is_away = True

    async def _look(self, now: float) -> None:
        """Print how the bakes have changed; say so if no worker answers."""
        try:
            progress = await self._handle.query(messages.PROGRESS, result_type=list[Progress], rpc_timeout=ANSWER)
        except (RPCError, WorkflowQueryFailedError, WorkflowQueryRejectedError):
            if now - self._last_news > QUIET:
                self._last_news = now
                if not await self._tell_of_workers(next(iter(self._queues.values())), WORKFLOWS):
                    self._print("no worker has answered for the build yet; waiting")
            return
        self._last_news = now
        for each in progress:
            before = self._seen.get(each.spec)
            self._seen[each.spec] = each
            if each != before and each.state != "waiting":
                self._print(_line(each))
        if now - self._last_check > QUIET:
            self._last_check = now
            baking = {
                self._queues[each.spec] for each in progress if each.state == "baking" and each.spec in self._queues
            }
            for queue in sorted(baking):
                if queue in self._lonely:
                    continue
                if await self._tell_of_workers(queue, ACTIVITIES):
                    self._lonely.add(queue)

    async def _tell_of_workers(self, queue: str, kind: TaskQueueType.ValueType) -> bool:
        """Say so if no worker takes bakes from a queue; return whether that is so."""
        request = DescribeTaskQueueRequest(
            namespace=self._server.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
        )
        try:
            found = await self._client.workflow_service.describe_task_queue(request, timeout=ANSWER)
        except RPCError:
            return False
        if found.pollers:
            return False
        waits = ", so the cancel waits for one" if self._is_cancelled else ""
        self._print(
            f"no worker takes bakes from queue '{queue}'{waits}: imagepipe worker --temporal {self._server.address}"
            f" --namespace {self._server.namespace} --queue {queue}"
        )
        return True

    async def _cancel(self) -> bool:
        try:
            await self._handle.cancel(rpc_timeout=ANSWER)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return True  # it has ended
            if error.status not in PASSING:
                raise _error("cancelling the build", error) from error
            return False
        return True

    async def _end(self) -> End | None:
        """Return the end of the build; None if the server goes away just now."""
        await self._look(asyncio.get_running_loop().time())
        try:
            return End(await self._handle.result())
        except WorkflowFailureError as failure:
            cause = failure.cause
            if isinstance(cause, CancelledError):
                return End(self._so_far(), is_cancelled=True)
            if isinstance(cause, ApplicationError) and cause.type == messages.BUILD_FAILED:
                return End(_result(cause))
            raise UsageError(
                f"the build ended in Temporal: {cause}",
                hint=f"look at its history: temporal workflow show --workflow-id {self._handle.id}; `imagepipe clean"
                " --all` with --state deletes what its bakes may have left",
            ) from failure
        except RPCError as error:
            self._note_silence(error)
            return None

    def _so_far(self) -> BuildResult:
        return BuildResult([], list(self._seen.values()))

    @contextmanager
    def counting_signals(self) -> Iterator[None]:
        def count() -> None:
            self._signals += 1

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, count)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


def _result(failure: ApplicationError) -> BuildResult:
    """Return the result that a failed build carries."""
    (content,) = failure.details
    found: BuildResult = value_to_type(BuildResult, content)
    return found


def _line(progress: Progress) -> str:
    text = f": {progress.text}" if progress.text else ""
    run = f" (run {progress.run})" if progress.state == "baking" else ""
    return f"{progress.spec}: {progress.state}{run}{text}"
