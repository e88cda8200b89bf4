"""The figures of docs/explanation/reliability.md, as a table; fails where one falls short. It can be continued.

    .venv/bin/python -m tests.reliability --state .setup/reliability

Two clouds work side by side: one has the crash matrix of EBS images, the stops and the storm, the other the crash
matrix of instance-store images. What was tried is kept in the state folder, and is not tried again as long as the code
is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from imagepipe.local.base import ensure_base
from imagepipe.local.offline import look_at
from imagepipe.local.store import Store, default_base_cache, default_root
from tests.hygiene.planted import PLANTED, WANTED, put
from tests.reliability.badinputs import run_bad_inputs
from tests.reliability.bench import OUTPUTS, Kind
from tests.reliability.cancels import run_cancels
from tests.reliability.matrix import ROOT, code_digest, counted, read_tried
from tests.reliability.storm import run_storm

STORM_BUILDS = 50
LEAST_POINTS = 40
LEAST_KINDS = 14


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

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of that name, made where there is none yet."""
        path = self.folder / f"{name}.json"
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["code"] == code_digest():
                return dict(kept["result"])
        result = make()
        path.write_text(json.dumps({"code": code_digest(), "result": result}))
        return result


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


def _is_wrong(stop: Any) -> bool:
    return bool(stop.wrong)


def hygiene() -> dict[str, Any]:
    """What of all that is planted on a disk is found, by kind; and what is found on clean base images."""
    with TemporaryDirectory(prefix="imagepipe-hygiene-") as name:
        tree, disk = Path(name) / "tree", Path(name) / "disk.raw"
        for planted in PLANTED:
            put(tree, planted.path, planted.content)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-d", str(tree), str(disk), "64M"], check=True)
        found = {(each.rule, each.path) for each in look_at(disk, WANTED, calling=_never).findings}
        kinds = {rule for planted in PLANTED for rule in planted.rules}
        missed = {rule for planted in PLANTED for rule in planted.rules if (rule, planted.path) not in found}
        cache = default_base_cache(os.environ) or default_root(os.environ) / "base"
        base = ensure_base(Store.open(Path(name) / "store", base_cache=cache), _say)
        whole = base.as_disk()
        disks = [base.path, *([whole.path] if whole else [])]
        alarms = sum(len(look_at(each, WANTED, calling=_never).findings) for each in disks)
    return {"kinds": len(kinds), "found": len(kinds - missed), "images": len(disks), "alarms": alarms}


def _never(_: Callable[[], None]) -> Any:
    return nullcontext()


def bad_inputs(seed: int) -> dict[str, Any]:
    found = run_bad_inputs(seed)
    return {"tried": found.tried, "unclear": len(found.unclear)}


def matrix(kind: Kind, state: Path, log: Path) -> None:
    """All points of a kind that were not tried yet, in a process of its own; its log is printed as it comes."""
    command = [sys.executable, "-m", "tests.reliability.matrix", "--kind", kind, "--state", str(state)]
    with (
        log.open("a") as file,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            if not line.startswith("|"):
                _say(f"crash matrix: {line.rstrip()}")


def figures(state: State, tried: Mapping[Kind, Path]) -> list[Figure]:
    """All rows, of what is kept."""
    rows = []
    for kind, path in tried.items():
        points, leaks, wrong = counted(list(read_tried(path).values()), kind)
        is_met = points >= LEAST_POINTS and not leaks and not wrong
        seen = f"{points} points, {leaks} leaks, {wrong} wrong resumes"
        rows.append(Figure(f"crash matrix, {kind}", seen, f"{LEAST_POINTS} points or more, 0, 0", is_met))
    of = {name: json.loads((state.folder / f"{name}.json").read_text())["result"] for name in NAMES}
    blown, stopped, looked, asked = (of[name] for name in NAMES)
    said = "{builds} builds, {faults} faults, {leaks} leaks, {unclear} unclear, {published} published though failed"
    is_met = blown["builds"] >= STORM_BUILDS and not (blown["leaks"] + blown["unclear"] + blown["published"])
    rows.append(Figure("storm", said.format(**blown), f"{STORM_BUILDS} builds, 0, 0, 0", is_met))
    said = "{stops} stops, one in each stage, {late} too late, {wrong} wrong"
    rows.append(Figure("Ctrl-C, SIGTERM, SIGHUP", said.format(**stopped), "0 wrong", not stopped["wrong"]))
    said = "{found} of {kinds} planted kinds found, {alarms} false alarms on {images} clean base images"
    is_met = looked["found"] == looked["kinds"] >= LEAST_KINDS and not looked["alarms"]
    rows.append(Figure("hygiene gate", said.format(**looked), f"all of at least {LEAST_KINDS}, 0", is_met))
    said = "{tried} tried, {unclear} unclear answers"
    rows.append(Figure("bad inputs", said.format(**asked), "0 unclear", not asked["unclear"]))
    return rows


NAMES = ("storm", "stops", "hygiene", "bad-inputs")


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
    words = parser.parse_args()
    state = State(words.state)
    tried: dict[Kind, Path] = {kind: words.state / f"matrix-{kind}.json" for kind in OUTPUTS}
    _say(f"seed {words.seed}; what was tried is kept in {words.state}")
    began = time.monotonic()
    state.once("bad-inputs", lambda: bad_inputs(words.seed))  # in this folder and environment: before the others begin
    state.once("hygiene", hygiene)

    def first() -> None:
        matrix("ebs", tried["ebs"], words.state / "matrix-ebs.log")
        state.once("stops", lambda: stops(words.seed))
        state.once("storm", lambda: storm(words.seed))

    def second() -> None:
        matrix("instance-store", tried["instance-store"], words.state / "matrix-instance-store.log")

    threads = [Thread(target=first), Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = figures(state, tried)
    _say(f"\n{table(rows)}\n\n{(time.monotonic() - began) / 60:.0f} minutes")
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
