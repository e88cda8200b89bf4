"""Measure many builds in one process on a cloud as slow as EC2, against one build: 1, 10, 50 and 200 of them.

    .venv/bin/python benchmarks/many.py

As root, on the machine that `make setup .setup/system-test` prepared. The builds have no copies, because EBS allows
only 20 at once into a region, so 200 of them would take ten times as long as one whatever the client does.

The cloud and the machines share the computer's cores with the client: two hundred machines that accept a login and are
scrubbed and scanned at the same moment keep two cores busy for minutes, but on EC2 each has cores of its own. So the
ratio is that of the wall times less the time that the last build spent on its machine, from the launch to the end of
the scan. CPU and memory are the client's own, by wait4(2); the cloud counts the calls.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from endpoint import Cost, Endpoint, arguments, cloud, table

DELAYS = {"run": 12.2, "stop": 31.3, "snapshot": 118.9, "image": 4.7, "copy": 183.4, "terminate": 32.8}
"""Delays in seconds, those of the middle cloud of waits.py."""
COUNTS = (1, 10, 50, 200)
ON_THE_MACHINE = ("connect", "step-1", "scrub")
"""Stages that consist of the machine's work."""
WALL, MEGABYTES, CPU_OF_100 = 1.1, 300, 60.0


@dataclass(frozen=True)
class Builds:
    """The cost of that many builds at once."""

    count: int
    cost: Cost
    describes: int
    """Describe calls, which grow with time and regions instead of builds."""
    on_machine: float
    """Seconds that the build which finished last spent on its machine."""

    @property
    def rest(self) -> float:
        return self.cost.wall - self.on_machine


def main() -> int:
    arguments("measures many builds in one process against one", 1)
    with cloud(driver="sshd") as end:
        _build(end, 1)  # the first build scans the source image, whose findings the others share
        end.admin("POST", "delays", DELAYS)
        found = [_build(end, count) for count in COUNTS]
    one, most = found[0], found[-1]
    wall = most.rest / one.rest
    cpu = most.cost.cpu / most.count * 100
    table(_rows(found, wall, cpu))
    is_good = wall <= WALL and most.cost.megabytes < MEGABYTES and cpu < CPU_OF_100
    print("within its targets" if is_good else "NOT within its targets")
    return 0 if is_good else 1


def _build(end: Endpoint, count: int) -> Builds:
    specs = [end.spec(f"many-{count}-{number}", has_copy=False) for number in range(count)]
    cost = end.run(end.imagepipe(*specs))
    describes = sum(calls for name, calls in end.calls.items() if ":Describe" in f":{name}")
    return Builds(count, cost, describes, _on_machine(end.output))


def _on_machine(log: str) -> float:
    """Return the time that the build whose capture ended last spent on its machine, from the lines of the log."""
    done = re.findall(r"#\d+ +(?:(\S+)/)?(\S+) +done in ([\d.]+) s", log)  # one spec has no prefix
    last = [spec for spec, stage, _ in done if stage == "capture"][-1]
    return sum(float(seconds) for spec, stage, seconds in done if spec == last and stage in ON_THE_MACHINE)


def _rows(found: Sequence[Builds], wall: float, cpu: float) -> list[Sequence[str]]:
    head = (
        "builds",
        "wall",
        "on the machine",
        "rest / one build's",
        "CPU",
        "CPU of 100",
        "memory",
        "calls",
        "Describe",
    )
    rows: list[Sequence[str]] = [head]
    for each in found:
        is_most = each is found[-1]
        ratio = f"{each.rest / found[0].rest:.2f}"
        of_100 = f"{each.cost.cpu / each.count * 100:.1f} s"
        size = f"{each.cost.megabytes:.0f} MB"
        if is_most:
            ratio = f"{wall:.2f} (at most {WALL})"
            of_100 = f"{cpu:.1f} s (under {CPU_OF_100:g})"
            size = f"{each.cost.megabytes:.0f} MB (under {MEGABYTES})"
        wall_text, machine, cpu_text = (f"{it:.1f} s" for it in (each.cost.wall, each.on_machine, each.cost.cpu))
        calls = str(each.cost.calls), str(each.describes)
        rows.append((str(each.count), wall_text, machine, ratio, cpu_text, of_100, size, *calls))
    return rows


if __name__ == "__main__":
    sys.exit(main())
