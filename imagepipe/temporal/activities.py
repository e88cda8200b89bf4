"""The activities: each starts a process that bakes or cleans up, sends heartbeats for it, and ends it if it must stop.

A process for each bake, because a process can be ended at any moment: its run is resumable. Temporal raises a cancel in
the middle of an activity's thread, perhaps while a record of the journal is written.
"""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from imagepipe.dataclass import dataclass
from imagepipe.errors import UndoFailed
from imagepipe.temporal import messages
from imagepipe.temporal.messages import BakedSpec, BakeRequest
from imagepipe.temporal.metrics import Metrics

HEARTBEAT_EVERY = 2.0
"""Seconds; a cancel arrives with the answer to a heartbeat."""
HELD = UndoFailed.exit_code
"""Exit code of a process that could not delete a resource; the images may be finished nevertheless."""
CLEAN_ATTEMPTS = 10
"""Attempts to clean up, in about four minutes, before a person must."""
LAST_LINES = 20
"""Lines of a failed process that its error shows."""
LINE_LIMIT = 1 << 20
"""Longest line, in bytes, that is read from a process."""


class Bakes:
    """The bakes of one worker."""

    def __init__(
        self, command: Sequence[str], worker: str, print_line: Callable[[str], None], metrics: Metrics
    ) -> None:
        """`command` starts a process that reads a request from standard input; it gets `bake` or `clean` as argument.

        Standard input stays open while the worker lives: at its end, the process ends at once.
        """
        self._command, self._worker, self._print, self._metrics = list(command), worker, print_line, metrics
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let go of all bakes: their processes end at once, and other workers resume them."""
        self._stopping.set()

    @activity.defn(name=messages.RUN_BAKE)
    async def bake(self, request: BakeRequest) -> BakedSpec:
        """Bake a spec, or resume the run in which a dead worker baked it."""
        with self._metrics.bake():
            end = await self._run("bake", request)
            printed = json.loads(end.printed) if end.printed.strip() else {}
            images = [image for image in printed.get("images", ()) if image["spec"] == request.job.spec]
            if end.code not in (0, HELD) or not images:
                raise end.failure()
        regions = [row for row in printed.get("failed_regions", ()) if row["spec"] == request.job.spec]
        held = messages.shortened("\n".join(end.lines)) if end.code == HELD else ""
        return BakedSpec(request.job.spec, request.job.run, images, self._worker, regions, held)

    @activity.defn(name=messages.RUN_CLEAN)
    async def clean(self, request: BakeRequest) -> None:
        """Delete what a run holds, if it exists and did not do so itself. An error may pass, so it is tried again."""
        end = await self._run("clean", request)
        if end.code != 0:
            failure = end.failure()
            if failure.type == messages.BAKE_FAILED and activity.info().attempt < CLEAN_ATTEMPTS:
                raise ApplicationError(failure.message, type="CleanFailed")
            raise failure

    async def _run(self, task: str, request: BakeRequest) -> _End:
        """Run a process to its end."""
        # A session of its own: Ctrl-C in the worker's terminal is the worker's affair.
        process = await asyncio.create_subprocess_exec(
            *self._command, task, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True, limit=LINE_LIMIT
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        lines: deque[str] = deque(maxlen=LAST_LINES)
        work = asyncio.gather(
            process.stdout.read(), self._forward(process.stderr, f"{request.job.spec} {request.job.run}", lines)
        )
        heart = asyncio.create_task(_beat())
        try:
            await self._until_end(process, work)
        finally:
            heart.cancel()
            if process.returncode is None:
                process.kill()
            await process.wait()
            process.stdin.close()
        printed, _ = await work
        return _End(process.returncode, printed, list(lines))

    async def _until_end(self, process: Process, work: asyncio.Future[Any]) -> None:
        """Wait until a process has ended. After a cancel it gets the time that it needs to clean up."""
        stopping = asyncio.create_task(self._stopping.wait())
        ended = asyncio.ensure_future(asyncio.shield(work))
        try:
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() and not ended.done():
                process.kill()
                raise ApplicationError("this worker is shutting down", type="WorkerStopped")
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or not details.cancel_requested or self._stopping.is_set():
                raise  # another worker may have the bake by now
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
            await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
            raise
        finally:
            stopping.cancel()
        await process.wait()

    async def _forward(self, stream: asyncio.StreamReader, prefix: str, last: deque[str]) -> None:
        """Print the lines of a process with a prefix, and keep the last ones."""
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # longer than the limit; it is dropped
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip("\n")
            last.append(text)
            self._print(f"[{prefix}] {text}")


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT_EVERY)


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a process."""

    code: int | None
    printed: bytes
    """Its standard output."""
    lines: Sequence[str]
    """The last lines of its standard error."""

    def failure(self) -> ApplicationError:
        """Return its error; Temporal tries again only after one that says nothing about the bake itself."""
        text = messages.shortened("\n".join(self.lines))
        if self.code == messages.AGAIN:
            return ApplicationError(
                text or "another process has the run", type="RunHeld", next_retry_delay=timedelta(seconds=5)
            )
        if self.code is None or self.code < 0:
            name = signal.Signals(-self.code).name if self.code else "nothing"
            return ApplicationError(f"the process was ended by {name}", type="ProcessEnded")
        begin = next((index for index, line in enumerate(self.lines) if line.startswith("error:")), 0)
        text = messages.shortened("\n".join(self.lines[begin:])) or f"the process ended with exit code {self.code}"
        return ApplicationError(text, type=messages.BAKE_FAILED, non_retryable=True)
