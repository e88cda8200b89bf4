"""Take the pipe, the disk space or the terminal of a build away: it must continue or end cleanly, and leak nothing.

    .venv/bin/python -m tests.reliability.outputs

Ways and stages are drawn from a seed that is printed. The builds run on the local cloud's `sshd` driver, with real
pipes and ptys.
"""

from __future__ import annotations

import argparse
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.machine.bakery import Bakery, until, without_boot
from tests.reliability.bench import COMMON, OUTPUTS, differences, inventory, own_images, retire
from tests.reliability.cancels import stages

MOMENTS = 20
SECONDS = 180
BUILD = [sys.executable, "-m", "imagepipe.cli.main", "build"]


@dataclass
class Loss:
    """One build that lost its output."""

    way: str
    stage: str
    wrong: list[str] = field(default_factory=list)
    was_late: bool = False
    """True if the build ended before it lost its output."""

    def words(self) -> str:
        how = "; ".join(self.wrong) or ("it had ended" if self.was_late else "in order")
        return f"{self.way} in {self.stage}: {how}"


@dataclass
class Started:
    """A build with an output that can be taken away."""

    pid: int
    lose: Callable[[], None]
    wait: Callable[[], int | None]
    """Wait for the end, and return the exit code; None on a terminal, where it is not checked."""
    outcome: str
    """The expected outcome of a run that loses its output before it ends."""


def losses(bakery: Bakery, seed: int, moments: int = MOMENTS) -> Iterator[Loss]:
    """Run so many builds, and take the output of each away, in varying ways and stages."""
    draw = random.Random(seed)
    names = [stage for stage, _ in stages(bakery, "ebs")]
    for number in range(moments):
        way = list(WAYS)[number % len(WAYS)]
        yield _lose(bakery, way, draw.choice(names), draw.uniform(0, 0.3))


def _lose(bakery: Bakery, way: str, stage: str, pause: float) -> Loss:
    found = Loss(way, stage)
    before, known = inventory(bakery), set(bakery.runs.iterdir())
    spec = bakery.write("ebs.yaml", COMMON.format(kind="ebs") + OUTPUTS["ebs"])
    started = WAYS[way](bakery, [*BUILD, str(spec), "--local"])
    try:

        def began() -> bool | None:
            if not set(bakery.runs.iterdir()) - known:
                return None
            return any(each["event"] == "StageStarted" and each["stage"] == stage for each in bakery.events()) or None

        until(began, f"{stage} begins", seconds=SECONDS)
        time.sleep(pause)
        started.lose()
        until(lambda: _outcome(bakery), "the run ends", seconds=SECONDS)
        code = started.wait()
    except BaseException:
        os.kill(started.pid, signal.SIGKILL)
        raise
    outcome = _outcome(bakery)
    found.was_late = outcome == "succeeded" != started.outcome
    if not found.was_late and outcome != started.outcome:
        found.wrong.append(f"the run {outcome}")
    if code not in (None, 0, 1, 130):
        found.wrong.append(f"exit code {code}")
    if outcome == "succeeded":
        retire(bakery, own_images(bakery, "ebs-"))
    found.wrong += differences(before, inventory(bakery))
    return found


def _outcome(bakery: Bakery) -> str | None:
    return next((each["outcome"] for each in bakery.journal() if each["type"] == "finished"), None)


def _close_pipes(bakery: Bakery, command: list[str]) -> Started:
    """Start a build with one pipe for standard output and error; losing it means that its reader closes it."""
    read, write = os.pipe()
    process = subprocess.Popen(command, cwd=bakery.folder, env=bakery.env, stdout=write, stderr=write)
    os.close(write)
    return Started(process.pid, lambda: os.close(read), process.wait, "succeeded")


def _fill_disk(bakery: Bakery, command: list[str]) -> Started:
    """Start a build with standard output on a full disk, and the JUnit file on a disk that is filled later."""
    junit = bakery.folder / "full.xml"
    junit.unlink(missing_ok=True)
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [*command, "--junit", str(junit)], cwd=bakery.folder, env=bakery.env, stdout=full, stderr=full
        )

    def lose() -> None:
        junit.unlink()
        junit.symlink_to("/dev/full")

    return Started(process.pid, lose, process.wait, "succeeded")


def _hang_up(bakery: Bakery, command: list[str]) -> Started:
    """Start a build that leads the session of a terminal, which is then closed."""
    return _on_terminal(bakery, command)


def _hang_up_shell(bakery: Bakery, command: list[str]) -> Started:
    """Start a build as a child of a terminal's shell; the terminal is then closed."""
    return _on_terminal(bakery, ["sh", "-c", '"$@"; :', "sh", *command])


def _on_terminal(bakery: Bakery, command: list[str]) -> Started:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(bakery.folder)
        os.execvpe(command[0], command, bakery.env)

    def wait() -> None:
        os.waitpid(pid, 0)

    return Started(pid, lambda: os.close(terminal), wait, "cancelled")


WAYS: dict[str, Callable[[Bakery, list[str]], Started]] = {
    "pipe closed": _close_pipes,
    "terminal closed": _hang_up,
    "disk full": _fill_disk,
    "terminal of the shell closed": _hang_up_shell,
}


def run_losses(seed: int) -> list[Loss]:
    """Run all of them on a separate cloud, and print a line for each."""
    found = []
    with tempfile.TemporaryDirectory(prefix="imagepipe-outputs-") as name, without_boot(Path(name)) as bakery:
        for loss in losses(bakery, seed):
            print(loss.words(), flush=True)
            found.append(loss)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="takes the output of builds away")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of ways and moments (now)")
    words = parser.parse_args()
    print(f"seed {words.seed}")
    return 1 if any(loss.wrong for loss in run_losses(words.seed)) else 0


if __name__ == "__main__":
    sys.exit(main())
