from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imagepipe.temporal import client
from imagepipe.temporal.connection import Server as Address
from imagepipe.temporal.messages import BuildRequest, Job, Limit
from tests.temporal.server import Server, server

SECONDS = 600.0


@dataclass(frozen=True)
class Note:
    """A line of the bakes' diary."""

    what: str
    spec: str
    run: str
    pid: int
    time: float
    bases: Mapping[str, Mapping[str, str]]


@dataclass
class Yard:
    """A server, its workers, and the diary of their bakes."""

    folder: Path
    temporal: Server
    workers: list[subprocess.Popen[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    """What the client printed."""

    def worker(self, **options: object) -> subprocess.Popen[str]:
        """Start a worker, and wait until it asks for work."""
        wanted = {"folder": str(self.folder), "address": self.temporal.address, **options}
        log = self.folder / f"worker-{len(self.workers)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.temporal.small_worker", json.dumps(wanted)],
                env={**os.environ, "PYTHONPATH": str(Path.cwd())},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        self.workers.append(process)
        self.until(lambda: "bakes from queue" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        return process

    def log(self, number: int) -> str:
        return (self.folder / f"worker-{number}.log").read_text()

    def build(self, build_id: str, request: BuildRequest) -> client.End:
        """Build, to the end."""
        return asyncio.run(self.building(build_id, request))

    async def building(self, build_id: str, request: BuildRequest) -> client.End:
        address = Address.at(self.temporal.address)
        queues = {job.spec: job.queue for job in request.jobs}
        return await client.build(address, {}, build_id, lambda: request, queues, self.lines.append)

    def go(self) -> None:
        """Let the slow bakes end."""
        (self.folder / "go").touch()

    def diary(self, what: str = "") -> list[Note]:
        path = self.folder / "diary"
        if not path.exists():
            return []
        rows = [line.split(" ", 5) for line in path.read_text().splitlines()]
        notes = [Note(row[0], row[1], row[2], int(row[3]), float(row[4]), json.loads(row[5])) for row in rows]
        return [note for note in notes if what in ("", note.what)]

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until it holds."""
        end = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < end, f"never became true: {condition}"
            time.sleep(0.05)

    def end(self) -> None:
        for process in self.workers:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture(scope="module")
def temporal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("temporal")) as own:
        yield own


@pytest.fixture
def yard(tmp_path: Path, temporal: Server) -> Iterator[Yard]:
    yard = Yard(tmp_path, temporal)
    yield yard
    yard.end()


@pytest.fixture(autouse=True)
def no_wakeup_of_signals() -> Iterator[None]:
    """Restore the handlers that a client replaced."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def request(*jobs: str, limits: list[Limit] | None = None, fail_fast: bool = False) -> BuildRequest:
    """A build; each job is `spec` or `spec<base`."""
    made = []
    for number, job in enumerate(jobs):
        spec, _, base = job.partition("<")
        made.append(Job(spec, f"{number:08x}", "imagepipe", base or None))
    return BuildRequest("s3://our-state", None, {}, "0" * 64, made, limits or [], fail_fast)
