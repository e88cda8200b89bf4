"""Measure the time that builds lose by waiting on a cloud as slow as EC2, against Debian's packer.

    .venv/bin/python benchmarks/waits.py

As root, on the machine that `make setup .setup/system-test` prepared. Three clouds with different delays run side by
side, and on each of them every tool builds at the same time: they wait nearly all of the time, so they do not
disturb one another. Neither the cloud's delays nor the tools' pauses are scaled down. Takes some eight minutes.

On each cloud, one build without delays comes before: imagepipe's first scan of a source image reads all of its files,
and later ones only those that changed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

from endpoint import Endpoint, arguments, cloud, table

DELAYS = (
    {"run": 9.3, "stop": 24.1, "snapshot": 96.7, "image": 3.1, "copy": 151.9, "terminate": 27.4},
    {"run": 12.2, "stop": 31.3, "snapshot": 118.9, "image": 4.7, "copy": 183.4, "terminate": 32.8},
    {"run": 15.8, "stop": 37.9, "snapshot": 140.6, "image": 6.2, "copy": 213.8, "terminate": 38.3},
)
"""Delays in seconds. They are not round numbers, because a multiple of packer's 15 s would favour it."""
PATH = ("run", "stop", "snapshot", "image", "copy")
"""Delays on the critical path of any build. Terminate is not on it: an instance can end while its image is copied."""
MOST, MOST_SECONDS = 0.12, 8
SETTINGS = {
    "imagepipe": {},
    "packer, as it comes": {},
    "packer, a look every second": {"AWS_POLL_DELAY_SECONDS": "1", "AWS_MAX_ATTEMPTS": "100000"},
}


def main() -> int:
    arguments("measures what builds lose to waiting, against packer", 1)
    past: dict[str, list[float]] = {by: [] for by in SETTINGS}
    walls: dict[str, list[float]] = {by: [] for by in SETTINGS}
    with ExitStack() as stack, ThreadPoolExecutor(len(DELAYS) * len(SETTINGS)) as pool:
        ends = [stack.enter_context(cloud(driver="sshd")) for _ in DELAYS]
        for end, delays in zip(ends, DELAYS, strict=True):
            _build(end, "imagepipe")
            end.admin("POST", "delays", delays)
        building = [
            (by, delays, pool.submit(_build, end, by))
            for end, delays in zip(ends, DELAYS, strict=True)
            for by in SETTINGS
        ]
        for by, delays, done in building:
            walls[by].append(done.result())
            past[by].append(walls[by][-1] - sum(delays[kind] for kind in PATH))
    ratio = _ratio(past, "packer, as it comes")
    table(_rows(walls, past, ratio))
    is_good = ratio <= MOST and statistics.median(past["imagepipe"]) <= MOST_SECONDS
    print("within its targets" if is_good else "NOT within its targets")
    return 0 if is_good else 1


def _build(end: Endpoint, by: str) -> float:
    name = f"waits-{len(by)}"
    command = end.imagepipe(end.spec(name))
    if by != "imagepipe":
        command = [end.packer, "build", str(end.template(name))]
    folder = end.folder / f"of-{name}"
    folder.mkdir(exist_ok=True)
    return replace(end, folder=folder).run(command, SETTINGS[by]).wall


def _ratio(past: dict[str, list[float]], other: str) -> float:
    return statistics.median(a / b for a, b in zip(past["imagepipe"], past[other], strict=True))


def _rows(walls: dict[str, list[float]], past: dict[str, list[float]], ratio: float) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("a build", "wall", "past the critical path", "median", "ours / theirs")]
    for by in SETTINGS:
        note = "" if by == "imagepipe" else f"{_ratio(past, by):.2f}"
        goal = f" (at most {MOST_SECONDS})" if by == "imagepipe" else ""
        if by == "packer, as it comes":
            note = f"{ratio:.2f} (at most {MOST})"
        shown = (", ".join(f"{seconds:.1f}" for seconds in each[by]) + " s" for each in (walls, past))
        rows.append((by, *shown, f"{statistics.median(past[by]):.1f} s{goal}", note))
    return rows


if __name__ == "__main__":
    sys.exit(main())
