"""Stop the build of the base image at random moments: it must delete no file of this computer, and leave no mount.

    .venv/bin/python -m tests.reliability.base_kills

Each build runs in a mount namespace of its own, where /dev/shm is a tmpfs with a canary, because the build binds
/dev/shm into its tree. Moments and signals are drawn from a seed that is printed. It needs Debian's mirror, as every
first build does.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagepipe.deletion import mount_points
from imagepipe.errors import LocalCloudError
from imagepipe.local.disks.base_image import repair
from imagepipe.local.store import Store

MOMENTS = 20
LONGEST_SECONDS = 40.0
"""A whole build takes some 50 s on two cores."""
GONE_SECONDS = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
SOURCES = ("/dev/shm",)
BUILD = (
    "import signal, sys; from pathlib import Path; from imagepipe.local.disks.base_image import ensure_base;"
    " from imagepipe.local.store import Store;"
    " signal.signal(signal.SIGTERM, signal.default_int_handler);"
    " ensure_base(Store.open(Path(sys.argv[1])), lambda line: None)"
)


@dataclass
class Kill:
    """One build that was stopped."""

    number: signal.Signals
    seconds: float
    wrong: list[str] = field(default_factory=list)

    def words(self) -> str:
        return f"{self.number.name} after {self.seconds:.1f} s: {'; '.join(self.wrong) or 'nothing lost, nothing left'}"


def kills(seed: int, moments: int = MOMENTS) -> Iterator[Kill]:
    """Stop so many builds of the base image."""
    draw = random.Random(seed)
    for number in range(moments):
        yield _outside(SIGNALS[number % len(SIGNALS)], draw.uniform(0.2, LONGEST_SECONDS))


def _outside(number: signal.Signals, seconds: float) -> Kill:
    """Run `_inside` in a mount namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="imagepipe-base-") as folder:
        command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", __spec__.name]
        done = subprocess.run(
            [*command, "--inside", folder, str(int(number)), str(seconds)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            return Kill(number, seconds, wrong=[done.stderr[-500:]])
        return Kill(number, seconds, wrong=json.loads(done.stdout))


def _inside(folder: Path, number: int, seconds: float) -> list[str]:
    """Build, stop it, and return all that is wrong afterwards."""
    subprocess.run(["mount", "-t", "tmpfs", "none", "/dev/shm"], check=True)
    canaries = [Path(source) / "canary" for source in SOURCES]
    for canary in canaries:
        canary.write_text("alive")
    root = folder / "store"
    builder = subprocess.Popen([sys.executable, "-c", BUILD, str(root)], stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    was_ended = builder.poll() is not None
    builder.send_signal(number)
    builder.wait()
    store, wrong = Store.open(root), []
    deadline = time.monotonic() + GONE_SECONDS
    while users := _users(folder):
        if time.monotonic() > deadline:
            wrong.append(f"still running: {users}")
            break
        time.sleep(0.1)
    if points := mount_points(folder):
        wrong.append(f"still mounted: {points}")
    if number != signal.SIGKILL and not was_ended and (left := list(store.base_cache.glob(".build-*"))):
        wrong.append(f"left behind: {left}")
    try:
        repair(store)
    except LocalCloudError as error:
        wrong.append(f"cannot be repaired: {error}")
    if left := list(store.base_cache.glob(".build-*")):
        wrong.append(f"not repaired: {left}")
    return wrong + [f"lost: {canary}" for canary in canaries if not canary.exists()]


def _users(folder: Path) -> list[str]:
    """List the processes that have this folder as their root or in their command."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            inside = str((process / "root").readlink())
        except OSError:
            continue
        if str(folder) in command or inside.startswith(str(folder)):
            found.append(command.strip())
    return found


def run_kills(seed: int) -> list[Kill]:
    """Run all of them, and print a line for each."""
    found = []
    for kill in kills(seed):
        print(kill.words(), flush=True)
        found.append(kill)
    return found


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="stops builds of the base image at random moments")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the moments (now)")
    parser.add_argument("--inside", nargs=3, metavar=("FOLDER", "SIGNAL", "SECONDS"), help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.inside:
        folder, number, seconds = given.inside
        print(json.dumps(_inside(Path(folder), int(number), float(seconds))))
        return 0
    print(f"seed {given.seed}")
    return 1 if any(kill.wrong for kill in run_kills(given.seed)) else 0


if __name__ == "__main__":
    sys.exit(main())
