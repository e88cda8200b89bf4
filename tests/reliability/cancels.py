"""Stop a build in each of its stages, by Ctrl-C, SIGTERM and a closed terminal in turn.

    .venv/bin/python -m tests.reliability.cancels

Each time it must end with exit code 130, print the reason, and leave the account as it was. The builds run on the local
cloud's `sshd` driver. The moment within the stage is drawn from a seed that is printed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.machine.bakery import Bakery, until, without_boot
from tests.reliability.bench import COMMON, OUTPUTS, Kind, differences, inventory, own_images, retire

SECONDS = 120
LONGEST_PAUSE = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stop:
    """The result of one build that was asked to stop."""

    kind: Kind
    stage: str
    signal: str
    was_late: bool = False
    """True if the build ended before the signal reached it."""
    wrong: list[str] = field(default_factory=list)

    def words(self) -> str:
        how = "; ".join(self.wrong) or ("it had ended" if self.was_late else "stopped, nothing left")
        return f"{self.kind} {self.signal} in {self.stage}: {how}"


def stages(bakery: Bakery, kind: Kind) -> list[tuple[str, float]]:
    """Return the stages of an undisturbed build, in order, with the seconds that each took."""
    bakery.build(_spec(bakery, kind))
    events = bakery.events()
    took = {each["stage"]: each["seconds"] for each in events if each["event"] == "StageFinished"}
    retire(bakery, own_images(bakery, f"{kind}-"))
    return [(each["stage"], took[each["stage"]]) for each in events if each["event"] == "StageStarted"]


def stops(bakery: Bakery, kind: Kind, seed: int, *, sample: int | None = None) -> Iterator[Stop]:
    """Stop a build in each of its stages, or in `sample` of them."""
    draw = random.Random(seed)
    every = stages(bakery, kind)
    chosen = every if sample is None else draw.sample(every, min(sample, len(every)))
    for (stage, seconds), number in zip(chosen, itertools.cycle(SIGNALS), strict=False):
        yield _stop(bakery, kind, stage, number, draw.uniform(0, min(seconds, LONGEST_PAUSE)))


def _stop(bakery: Bakery, kind: Kind, stage: str, number: signal.Signals, pause: float) -> Stop:
    found = Stop(kind, stage, number.name)
    before, known = inventory(bakery), set(bakery.runs.iterdir())
    process = bakery.start("build", str(_spec(bakery, kind)), "--local")

    def began() -> bool | None:
        if not set(bakery.runs.iterdir()) - known:
            return None
        return any(each["event"] == "StageStarted" and each["stage"] == stage for each in bakery.events()) or None

    until(began, f"{stage} begins", seconds=SECONDS)
    time.sleep(pause)
    process.send_signal(number)
    _, err = process.communicate(timeout=SECONDS)
    outcome = [each.get("outcome") for each in bakery.journal() if each["type"] == "finished"]
    if process.returncode in (0, -number) and outcome == ["succeeded"]:  # -number: the signal came after the run's end
        found.was_late = True
        retire(bakery, own_images(bakery, f"{kind}-"))
    elif process.returncode != 130 or f"error: got {number.name}" not in err or "Traceback" in err:
        found.wrong.append(f"exit {process.returncode}: {err[-500:]}")
    found.wrong += differences(before, inventory(bakery))
    return found


def _spec(bakery: Bakery, kind: Kind) -> Path:
    return bakery.write(f"{kind}.yaml", COMMON.format(kind=kind) + OUTPUTS[kind])


def run_cancels(seed: int, kinds: Sequence[Kind] = tuple(OUTPUTS)) -> list[Stop]:
    """Run all of them on a separate cloud, and print a line for each."""
    found = []
    with tempfile.TemporaryDirectory(prefix="imagepipe-cancels-") as name, without_boot(Path(name)) as bakery:
        for kind in kinds:
            for stop in stops(bakery, kind, seed):
                print(stop.words(), flush=True)
                found.append(stop)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="stops builds in every one of their stages")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments (now)")
    words = parser.parse_args()
    print(f"seed {words.seed}")
    return 1 if any(stop.wrong for stop in run_cancels(words.seed)) else 0


if __name__ == "__main__":
    sys.exit(main())
