"""Print the figures of docs/explanation/reliability.md as a table; fail if one falls short. A run can be continued.

    .venv/bin/python -m tests.reliability --state .setup/reliability

Two clouds run side by side: one for the crash matrix of EBS images, the stops and the storm, the other for the crash
matrix of instance-store images. The state folder keeps the results, which are not repeated while the code is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from imagepipe.local.disks.base_image import ensure_base
from imagepipe.local.disks.search import scan_disk
from imagepipe.local.store import Store, default_base_cache, default_root
from tests.hygiene.planted import PLANTED, WANTED, put
from tests.reliability.badinputs import run_bad_inputs
from tests.reliability.base_kills import run_kills
from tests.reliability.bench import SCENARIOS, Scenario
from tests.reliability.cancels import run_cancels
from tests.reliability.matrix import ROOT, code_digest, counted, points_of, read_tried
from tests.reliability.outputs import run_losses
from tests.reliability.storm import run_storm
from tests.reliability.workers import run_chaos

STORM_BUILDS = 50
LEAST_POINTS = 40
LEAST_KINDS = 14
LEAST_MOMENTS = 20
WORKER_KILLS = 50


@dataclass(frozen=True)
class Figure:
    """A row of the table."""

    what: str
    seen: str
    wanted: str
    is_met: bool


class State:
    """Results by name, kept as long as the code is the same."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Make the result of this name, unless it is kept already."""
        if not self.kept(name):
            self._path(name).write_text(json.dumps({"code": code_digest(), "result": make()}))

    def kept(self, name: str) -> dict[str, Any]:
        """Return the result of this name; empty if this code has none."""
        path = self._path(name)
        found = json.loads(path.read_text()) if path.exists() else {}
        return dict(found["result"]) if found.get("code") == code_digest() else {}

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def storm(seed: int) -> dict[str, Any]:
    found = run_storm(STORM_BUILDS, seed, say=_say)
    _say(found.words())
    return {
        "builds": found.builds,
        "faults": found.faults_injected,
        "leaks": len(found.leaks),
        "unclear": len(found.unclear),
        "published": len(found.published_by_failed),
    }


def stops(seed: int) -> dict[str, Any]:
    found = run_cancels(seed)
    return {"stops": len(found), "late": sum(each.was_late for each in found), "wrong": sum(map(_is_wrong, found))}


def outputs(seed: int) -> dict[str, Any]:
    found = run_losses(seed)
    return {"moments": len(found), "late": sum(each.was_late for each in found), "wrong": sum(map(_is_wrong, found))}


def base_image(seed: int) -> dict[str, Any]:
    found = run_kills(seed)
    return {"moments": len(found), "wrong": sum(map(_is_wrong, found))}


def _is_wrong(stop: Any) -> bool:
    return bool(stop.wrong)


def hygiene(_: int) -> dict[str, Any]:
    """Count the planted kinds that the scan finds on a disk, and its false alarms on clean base images."""
    with TemporaryDirectory(prefix="imagepipe-hygiene-") as name:
        tree, disk = Path(name) / "tree", Path(name) / "disk.raw"
        for planted in PLANTED:
            put(tree, planted.path, planted.content)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(disk), "64M"], check=True)
        found = {(each.rule, each.path) for each in scan_disk(disk, WANTED, calling=_never).findings}
        kinds = {rule for planted in PLANTED for rule in planted.rules}
        missed = {rule for planted in PLANTED for rule in planted.rules if (rule, planted.path) not in found}
        cache = default_base_cache(os.environ) or default_root(os.environ) / "base"
        base = ensure_base(Store.open(Path(name) / "store", base_cache=cache), _say)
        whole = base.as_disk()
        disks = [base.path, *([whole.path] if whole else [])]
        alarms = sum(len(scan_disk(each, WANTED, calling=_never).findings) for each in disks)
    return {"kinds": len(kinds), "found": len(kinds - missed), "images": len(disks), "alarms": alarms}


def _never(_: Callable[[], None]) -> Any:
    return nullcontext()


def workers(seed: int) -> dict[str, Any]:
    with TemporaryDirectory(prefix="imagepipe-workers-") as name:
        found = run_chaos(WORKER_KILLS, seed, folder=Path(name), say=_say)
    _say(found.words())
    kills = found.kills.total()
    return {"builds": found.builds, "kills": kills, "leaks": len(found.leaks), "wrong": len(found.wrong)}


def bad_inputs(seed: int) -> dict[str, Any]:
    found = run_bad_inputs(seed)
    return {"tried": found.tried, "unclear": len(found.unclear)}


class Work:
    """Child processes, in rows that run in parallel; an interrupt ends all of them cleanly."""

    def __init__(self) -> None:
        self._ends = Event()
        self._running: set[subprocess.Popen[str]] = set()

    def row(self, *commands: Sequence[str]) -> Thread:
        """Run the commands one after the other, in a thread, and print their output."""

        def run() -> None:
            for command in commands:
                if self._ends.is_set():
                    return
                self._run(command)

        thread = Thread(target=run)
        thread.start()
        return thread

    def _run(self, command: Sequence[str]) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            self._running.add(process)
            for line in process.stdout:
                if not line.startswith("|"):
                    _say(f"{command[0].rpartition('.')[2]}: {line.rstrip()}")
            self._running.discard(process)

    def end(self) -> None:
        self._ends.set()
        for process in list(self._running):
            process.terminate()  # they treat SIGTERM as Ctrl-C; SIGINT itself may be ignored


def figures(state: State, tried: Mapping[Scenario, Path]) -> list[Figure]:
    """Make all rows from the kept results."""
    rows = []
    for kind, path in tried.items():
        points, leaks, wrong = counted(list(read_tried(path).values()), kind)
        every = points_of(path)
        is_met = points == every >= LEAST_POINTS and not leaks and not wrong
        seen = f"{points} of {every} points, {leaks} leaks, {wrong} wrong resumes"
        rows.append(Figure(f"crash matrix, {kind}", seen, f"all of at least {LEAST_POINTS} points, 0, 0", is_met))
    rows += [
        _figure(state, "storm", SAID_OF_STORM, f"{STORM_BUILDS} builds, 0, 0, 0", _storm_is_met),
        _figure(state, "stops", SAID_OF_STOPS, "0 wrong", lambda it: not it["wrong"]),
        _figure(state, "outputs", SAID_OF_OUTPUTS, f"{LEAST_MOMENTS} moments, 0 wrong", _moments_are_met),
        _figure(state, "base-image", SAID_OF_BASE, f"{LEAST_MOMENTS} moments, 0 wrong", _moments_are_met),
        _figure(state, "workers", SAID_OF_WORKERS, f"{WORKER_KILLS} kills, 0, 0", _workers_are_met),
        _figure(state, "hygiene", SAID_OF_HYGIENE, f"all of at least {LEAST_KINDS}, 0", _hygiene_is_met),
        _figure(state, "bad-inputs", "{tried} tried, {unclear} unclear answers", "0", lambda it: not it["unclear"]),
    ]
    return rows


SAID_OF_STORM = (
    "{builds} builds, {faults} faults, {leaks} leaks, {unclear} unclear, {published} published by failed ones"
)
SAID_OF_STOPS = "{stops} by Ctrl-C, SIGTERM, SIGHUP, one in each stage, {late} of them too late, {wrong} wrong"
SAID_OF_OUTPUTS = (
    "{moments} moments of closed pipes and terminals and full disks, {late} of them too late, {wrong} wrong"
)
SAID_OF_BASE = "{moments} moments at which its build was killed, {wrong} with a file lost or something left"
SAID_OF_WORKERS = "{kills} kills of workers, clients and servers in {builds} builds, {leaks} leaks, {wrong} wrong"
SAID_OF_HYGIENE = "{found} of {kinds} planted kinds found, {alarms} false alarms on {images} clean base images"


def _storm_is_met(it: Mapping[str, Any]) -> bool:
    return it["builds"] >= STORM_BUILDS and not (it["leaks"] + it["unclear"] + it["published"])


def _moments_are_met(it: Mapping[str, Any]) -> bool:
    return it["moments"] >= LEAST_MOMENTS and not it["wrong"]


def _workers_are_met(it: Mapping[str, Any]) -> bool:
    return it["kills"] >= WORKER_KILLS and not (it["leaks"] + it["wrong"])


def _hygiene_is_met(it: Mapping[str, Any]) -> bool:
    return it["found"] == it["kinds"] >= LEAST_KINDS and not it["alarms"]


def _figure(state: State, part: str, said: str, wanted: str, is_met: Callable[[dict[str, Any]], bool]) -> Figure:
    if found := state.kept(part):
        return Figure(part, said.format(**found), wanted, is_met(found))
    return Figure(part, "did not come to its end", wanted, is_met=False)


def table(rows: Sequence[Figure]) -> str:
    cells = [("what", "seen", "wanted", ""), ("---",) * 4]
    cells += [(row.what, row.seen, row.wanted, "met" if row.is_met else "SHORT") for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="all that is said of reliability, tried")
    parser.add_argument("--state", type=Path, default=ROOT / ".setup/reliability", help="where to keep what was tried")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of storm, stops and slips (now)")
    parser.add_argument("--only", choices=sorted(PARTS), help="this part alone, and no table")
    words = parser.parse_args()
    state = State(words.state)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if words.only:
        state.once(words.only, lambda: PARTS[words.only](words.seed))
        return 0
    _say(f"seed {words.seed}; what was tried is kept in {words.state}")
    began = time.monotonic()
    tried: dict[Scenario, Path] = {kind: words.state / f"matrix-{kind}.json" for kind in SCENARIOS}
    parts = {
        name: ["tests.reliability", "--only", name, "--seed", str(words.seed), "--state", str(words.state)]
        for name in PARTS
    }
    kills = {kind: ["tests.reliability.matrix", "--kind", kind, "--state", str(path)] for kind, path in tried.items()}
    work = Work()
    rows = [
        work.row(parts["bad-inputs"], parts["hygiene"], kills["ebs"], parts["stops"], parts["storm"]),
        work.row(parts["base-image"], parts["outputs"], parts["workers"], kills["instance-store"], kills["family"]),
    ]
    try:
        for row in rows:
            row.join()
    except KeyboardInterrupt:
        work.end()
        for row in rows:
            row.join()
        _say(f"interrupted; the same command goes on: {words.state}")
        return 130
    found = figures(state, tried)
    _say(f"\n{table(found)}\n\n{(time.monotonic() - began) / 60:.0f} minutes")
    return 0 if all(row.is_met for row in found) else 1


PARTS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "bad-inputs": bad_inputs,
    "base-image": base_image,
    "hygiene": hygiene,
    "outputs": outputs,
    "stops": stops,
    "storm": storm,
    "workers": workers,
}

if __name__ == "__main__":
    sys.exit(main())
