"""Measure many builds in one process on a cloud as slow as EC2, against one build: 1, 10, 50 and 200 of them.

    .venv/bin/python benchmarks/many.py [--builds 200]

As root, on the machine that `make setup .setup/system-test` prepared. The cloud and the machines share the computer's
cores with the client, and the work of many machines (their sshd, scrub and scan) is not the client's: so the table also
has the client's own CPU time and memory, by wait4(2), and its calls, which the cloud counts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from endpoint import Cost, Endpoint, arguments, cloud, table

DELAYS = {"run": 12.2, "stop": 31.3, "snapshot": 118.9, "image": 4.7, "copy": 183.4, "terminate": 32.8}
"""Delays in seconds, those of the middle cloud of waits.py."""
COUNTS = (1, 10, 50, 200)
WALL, MEGABYTES, CPU_OF_100 = 1.1, 300, 60.0


@dataclass(frozen=True)
class Builds:
    """The cost of that many builds at once."""

    count: int
    cost: Cost
    describes: int
    """Describe calls, which grow with time and regions instead of builds."""


def main() -> int:
    arguments("measures many builds in one process against one", 1)
    with cloud(driver="sshd") as end:
        _build(end, 1)  # the first build scans the source image, whose findings the others share
        end.admin("POST", "delays", DELAYS)
        found = [_build(end, count) for count in COUNTS]
    one, most = found[0], found[-1]
    wall = most.cost.wall / one.cost.wall
    cpu = most.cost.cpu / most.count * 100
    table(_rows(found, wall, cpu))
    is_good = wall <= WALL and most.cost.megabytes < MEGABYTES and cpu < CPU_OF_100
    print("within its targets" if is_good else "NOT within its targets")
    return 0 if is_good else 1


def _build(end: Endpoint, count: int) -> Builds:
    specs = [end.spec(f"many-{count}-{number}") for number in range(count)]
    cost = end.run(end.imagepipe(*specs))
    return Builds(count, cost, sum(calls for name, calls in end.calls.items() if name.startswith("Describe")))


def _rows(found: Sequence[Builds], wall: float, cpu: float) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("builds", "wall", "/ one build", "CPU", "CPU of 100 builds", "memory", "calls", "of them Describe")
    ]
    for each in found:
        is_most = each is found[-1]
        ratio = f"{each.cost.wall / found[0].cost.wall:.2f}"
        of_100 = f"{each.cost.cpu / each.count * 100:.1f} s"
        size = f"{each.cost.megabytes:.0f} MB"
        if is_most:
            ratio = f"{wall:.2f} (at most {WALL})"
            of_100 = f"{cpu:.1f} s (under {CPU_OF_100:g})"
            size = f"{each.cost.megabytes:.0f} MB (under {MEGABYTES})"
        wall_text, cpu_text = f"{each.cost.wall:.1f} s", f"{each.cost.cpu:.1f} s"
        rows.append(
            (str(each.count), wall_text, ratio, cpu_text, of_100, size, str(each.cost.calls), str(each.describes))
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
