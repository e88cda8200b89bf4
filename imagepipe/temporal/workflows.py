"""The workflows: a build starts a child workflow for each spec, and each of those runs one activity.

Deterministic code in Temporal's sandbox: the standard library and `messages` only. A running build stays on the version
of this file that it began with, because workers pin it (`worker.py`); so a change here needs no patches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy, VersioningBehavior
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    ChildWorkflowError,
    FailureError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from imagepipe.temporal import messages
    from imagepipe.temporal.messages import BakedSpec, BakeRequest, BuildRequest, BuildResult, Job, Progress

LONGEST_BAKE = timedelta(hours=24)
HEARTBEAT = timedelta(seconds=25)
"""A worker that has sent no heartbeat for so long is dead. A server that restarts within it interrupts no bake. Others
could not resume a dead worker's bake much earlier, because its lease on the run lasts 30 seconds."""
RETRY_BAKE = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=30,
    non_retryable_error_types=[messages.BAKE_FAILED],
)
"""Attempts end by the death of a worker, or because another one has the run. Other errors fail the bake at once."""
RETRY_CLEAN = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=60))
LONGEST_CLEAN = timedelta(hours=6)


@workflow.defn(name=messages.BAKE, versioning_behavior=VersioningBehavior.PINNED)
class BakeWorkflow:
    """Bakes one spec, on whichever worker has room, and on another one if that worker dies."""

    @workflow.run
    async def run(self, request: BakeRequest) -> BakedSpec:
        try:
            baked: BakedSpec = await workflow.execute_activity(
                messages.RUN_BAKE,
                request,
                result_type=BakedSpec,
                start_to_close_timeout=LONGEST_BAKE,
                heartbeat_timeout=HEARTBEAT,
                retry_policy=RETRY_BAKE,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        except (ActivityError, asyncio.CancelledError) as error:
            # A worker may have died with resources, and no other one have begun: nobody else would delete them.
            if held := await self._clean(request):
                text = "cancelled" if is_cancelled_exception(error) else _cause(error)
                raise ApplicationError(f"{text}\n{held}", type=messages.BAKE_FAILED, non_retryable=True) from None
            raise
        return replace(baked, held=await self._clean(request)) if baked.held else baked

    async def _clean(self, request: BakeRequest) -> str:
        """Delete what the run holds, also if a cancel comes meanwhile; return why something is left, or nothing."""
        cleaning = asyncio.ensure_future(self._clean_now(request))
        while not cleaning.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(cleaning)
        return cleaning.result()

    async def _clean_now(self, request: BakeRequest) -> str:
        try:
            await workflow.execute_activity(
                messages.RUN_CLEAN,
                request,
                task_queue=f"{request.job.queue}{messages.CLEAN_SUFFIX}",
                start_to_close_timeout=LONGEST_CLEAN,
                schedule_to_close_timeout=LONGEST_CLEAN,
                heartbeat_timeout=HEARTBEAT,
                retry_policy=RETRY_CLEAN,
            )
        except ActivityError as error:
            return f"not cleaned up: {_cause(error)}"
        return ""


@workflow.defn(name=messages.BUILD, versioning_behavior=VersioningBehavior.PINNED)
class BuildWorkflow:
    """Bakes the specs of a build, each as soon as its base is baked. A failed base fails its layers, nothing else."""

    @workflow.init
    def __init__(self, request: BuildRequest) -> None:
        self._request = request
        self._progress = {job.spec: Progress(job.spec, job.run, "waiting") for job in request.jobs}
        self._baked: dict[str, BakedSpec] = {}
        self._ended = {job.spec: asyncio.Event() for job in request.jobs}
        self._limits = {
            spec: semaphore
            for limit in request.limits
            for semaphore in [asyncio.Semaphore(limit.at_once)]
            for spec in limit.specs
        }

    @workflow.query(name=messages.PROGRESS)
    def progress(self) -> list[Progress]:
        return list(self._progress.values())

    @workflow.run
    async def run(self, request: BuildRequest) -> BuildResult:
        tasks = [asyncio.create_task(self._bake(job)) for job in request.jobs]
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            await asyncio.gather(*tasks, return_exceptions=True)  # until every bake has cleaned up
            raise
        except ChildWorkflowError:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if _is_cancelled():
                raise asyncio.CancelledError from None
        result = BuildResult(list(self._baked.values()), self.progress())
        if failed := [each.spec for each in result.progress if each.state != "baked"]:
            raise ApplicationError(
                f"not baked: {', '.join(failed)}", result, type=messages.BUILD_FAILED, non_retryable=True
            )
        return result

    async def _bake(self, job: Job) -> None:
        """Bake a spec, and record how it ended. Raises ChildWorkflowError if the whole build must stop for it."""
        try:
            if job.base is not None:
                await self._ended[job.base].wait()
                if self._progress[job.base].state != "baked":
                    failed = self._progress[job.base].failed_base or job.base
                    self._note(job, "left out", f"its base {failed} failed", failed)
                    return
            async with self._room(job):
                self._note(job, "baking")
                await self._bake_now(job)
        except asyncio.CancelledError:
            if self._progress[job.spec].state in ("waiting", "baking"):
                self._note(job, "cancelled")
            raise
        finally:
            self._ended[job.spec].set()

    async def _bake_now(self, job: Job) -> None:
        request = self._request
        bases = {spec: self._baked[spec].by_region() for spec in self._below(job)}
        try:
            baked = await workflow.execute_child_workflow(
                BakeWorkflow.run,
                BakeRequest(request.state, request.kms_key, request.cloud, request.package, job, bases),
                id=f"{workflow.info().workflow_id}/{job.spec}",
                task_queue=job.queue,
                cancellation_type=workflow.ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
            )
        except ChildWorkflowError as error:
            if is_cancelled_exception(error):
                self._note(job, "cancelled")
                if _is_cancelled():  # so that `gather` sees a cancel, and no failure
                    raise asyncio.CancelledError from None
                return  # somebody cancelled this bake alone
            self._note(job, "failed", messages.shortened(_cause(error)))
            if request.fail_fast:
                raise
            return
        self._baked[job.spec] = baked
        images = ", ".join(f"{id} in {region}" for region, id in baked.by_region().items())
        self._note(job, "baked", images)

    def _below(self, job: Job) -> list[str]:
        """Return the specs below one, its base first."""
        base_of = {each.spec: each.base for each in self._request.jobs}
        found: list[str] = []
        base = job.base
        while base is not None:
            found.append(base)
            base = base_of[base]
        return found

    def _note(self, job: Job, state: str, text: str = "", failed_base: str = "") -> None:
        self._progress[job.spec] = Progress(job.spec, job.run, state, text, failed_base)

    @asynccontextmanager
    async def _room(self, job: Job) -> AsyncIterator[None]:
        """Wait until there is room among the specs that share a limit."""
        limit = self._limits.get(job.spec)
        if limit is None:
            yield
            return
        async with limit:
            yield


def _is_cancelled() -> bool:
    """Return whether somebody cancelled the task that asks."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cause(error: BaseException) -> str:
    """Return the message of the innermost failure."""
    while isinstance(error, FailureError) and error.cause is not None:
        error = error.cause
    return error.message if isinstance(error, FailureError) else str(error)
