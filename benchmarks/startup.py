"""Time the start of the command, against a Python that does nothing.

    .venv/bin/python benchmarks/startup.py

Runs alternate, and ratios are taken pair by pair. `completion` prints the script that a shell loads at its start; a TAB
starts no Python.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from endpoint import COMMAND, table

NOTHING = "python -c pass"
WAYS = {
    NOTHING: [sys.executable, "-c", "pass"],
    "imagepipe --version": [*COMMAND, "--version"],
    "imagepipe completion bash": [*COMMAND, "completion", "bash"],
    "imagepipe --help": [*COMMAND, "--help"],
    "imagepipe build --help": [*COMMAND, "build", "--help"],
}
GOALS = {
    "imagepipe --version": (NOTHING, 4.0),
    "imagepipe completion bash": ("imagepipe --version", 1.3),
}
"""The command that each is compared with, and how many times as long it may take at most."""


def main() -> int:
    parser = argparse.ArgumentParser(description="times the start of the command")
    parser.add_argument("--runs", type=int, default=21, help="alternating runs of each (21)")
    runs = parser.parse_args().runs
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; the median of {runs} alternating runs")
    walls: dict[str, list[float]] = {name: [] for name in WAYS}
    for count in range(runs + 1):
        for name, command in WAYS.items():
            began = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            if count:  # the first round fills the caches
                walls[name].append(time.perf_counter() - began)
    rows = [("command", "wall", f"/ {NOTHING}", "target")]
    is_good = True
    for name in WAYS:
        goal = "for comparison"
        if name in GOALS:
            other, most = GOALS[name]
            ratio = _ratio(walls, name, other)
            is_good = is_good and ratio <= most
            goal = f"{ratio:.2f} of {other} (at most {most})" if other != NOTHING else f"{ratio:.2f} (at most {most})"
        wall = statistics.median(walls[name]) * 1000
        rows.append((name, f"{wall:.0f} ms", f"{_ratio(walls, name, NOTHING):.2f}", goal))
    table(rows)
    print("within its targets" if is_good else "NOT within its targets")
    return 0 if is_good else 1


def _ratio(walls: dict[str, list[float]], name: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(walls[name], walls[other], strict=True))


if __name__ == "__main__":
    sys.exit(main())
