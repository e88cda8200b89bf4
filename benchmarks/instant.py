"""Time builds on a cloud that answers at once, against Debian's packer: one build, and twenty in parallel.

    .venv/bin/python benchmarks/instant.py

As root, on the machine that `make setup .setup/system-test` prepared. Machines consist of an sshd, so nothing boots;
the cloud adds no delays. A build has one shell step, and one copy to a second region. Runs alternate, and ratios are
taken pair by pair. Wall and CPU seconds (children included) and resident sets are those of the clients alone, by
wait4(2). The cloud counts the calls.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence

from endpoint import FAST, ROOT, Cost, Endpoint, arguments, cloud, table

MANY = 20
WALL_ONE, CPU_ONE, WALL_MANY, CALLS_MANY = 1.0, 1.25, 0.5, 0.6
"""The most that ours may take, as a multiple of packer's with its best settings."""
Way = Callable[[], Cost]


def main() -> int:
    runs = arguments("times builds on a cloud that answers at once against packer's", 7).runs
    with cloud(driver="sshd") as end:
        one, one_good = _one(end, runs)
        many, many_good = _many(end, max(3, runs // 2))
        table(one)
        print()
        table(many)
    is_good = one_good and many_good
    print("all within their targets" if is_good else "NOT within the targets")
    return 0 if is_good else 1


def _one(end: Endpoint, runs: int) -> tuple[list[Sequence[str]], bool]:
    spec, plain, scrubbing = end.spec(), end.template("bench"), _scrubbing(end)
    fast: dict[str, Way] = {
        "imagepipe": lambda: end.run(end.imagepipe(spec)),
        "packer, without pauses": lambda: end.run([end.packer, "build", str(plain)], FAST),
        "packer, without pauses, and our scrub": lambda: end.run([end.packer, "build", str(scrubbing)], FAST),
    }
    costs = _rounds(fast, runs)
    costs["packer, as it comes"] = [end.run([end.packer, "build", str(plain)])]
    ratio = _ratio(costs, "packer, without pauses", "wall")
    cpu = _ratio(costs, "packer, without pauses", "cpu")
    goals = f"{ratio:.2f} (at most {WALL_ONE}), CPU {cpu:.2f} (at most {CPU_ONE})"
    rows = _rows("one build", costs, {"packer, without pauses": goals})
    return rows, ratio <= WALL_ONE and cpu <= CPU_ONE


def _many(end: Endpoint, runs: int) -> tuple[list[Sequence[str]], bool]:
    names = [f"many-{number}" for number in range(MANY)]
    specs = [end.spec(name) for name in names]
    template = end.template(*names)
    each = [[end.packer, "build", str(end.template(name))] for name in names]
    fast: dict[str, Way] = {
        "imagepipe, one process": lambda: end.run(end.imagepipe(*specs)),
        "packer, one template, without pauses": lambda: end.run([end.packer, "build", str(template)], FAST),
        "packer, twenty processes, without pauses": lambda: end.run_all(each, FAST),
    }
    costs = _rounds(fast, runs)
    costs["packer, one template, as it comes"] = [end.run([end.packer, "build", str(template)])]
    ours = "imagepipe, one process"
    best = min(list(costs)[1:3], key=lambda way: statistics.median(cost.wall for cost in costs[way]))
    wall = _ratio(costs, best, "wall")
    fewest = min(statistics.median(cost.calls for cost in costs[way]) for way in costs if way != ours)
    calls = statistics.median(cost.calls for cost in costs[ours]) / fewest
    rows = _rows(
        f"{MANY} builds at once",
        costs,
        {
            best: f"{wall:.2f} (at most {WALL_MANY})",
            "packer, one template, as it comes": f"calls {calls:.2f} (at most {CALLS_MANY})",
        },
    )
    return rows, wall <= WALL_MANY and calls <= CALLS_MANY


def _scrubbing(end: Endpoint) -> str:
    """Write the template with an additional step: imagepipe's scrub, which precedes each of its captures."""
    path = end.template("scrubbing")
    template = json.loads(path.read_text())
    script = str(ROOT / "imagepipe" / "capture" / "scrub.sh")
    template["provisioners"].append(
        {"type": "shell", "script": script, "execute_command": "sudo sh {{.Path}} no-key-of-ours"}
    )
    path.write_text(json.dumps(template))
    return str(path)


def _rounds(ways: dict[str, Way], runs: int) -> dict[str, list[Cost]]:
    """Return the cost of each way, round by round, after one round that does not count."""
    costs: dict[str, list[Cost]] = {by: [] for by in ways}
    for count in range(runs + 1):
        for by, build in ways.items():
            cost = build()
            if count:
                costs[by].append(cost)
    return costs


def _ratio(costs: dict[str, list[Cost]], other: str, field: str) -> float:
    ours = next(iter(costs.values()))
    return statistics.median(getattr(a, field) / getattr(b, field) for a, b in zip(ours, costs[other], strict=True))


def _rows(title: str, costs: dict[str, list[Cost]], notes: dict[str, str]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [(title, "wall", "CPU", "memory", "calls a build", "ours / theirs")]
    builds = MANY if "at once" in title else 1
    for by, each in costs.items():
        wall, cpu, size, calls = (
            statistics.median(getattr(c, f) for c in each) for f in ("wall", "cpu", "megabytes", "calls")
        )
        note = notes.get(by, "" if by.startswith("imagepipe") else _plain(costs, by))
        rows.append((by, f"{wall:.2f} s", f"{cpu:.2f} s", f"{size:.0f} MB", f"{calls / builds:.1f}", note))
    return rows


def _plain(costs: dict[str, list[Cost]], by: str) -> str:
    ours = next(iter(costs.values()))
    if len(ours) == len(costs[by]):
        return f"{_ratio(costs, by, 'wall'):.2f}"
    return f"{statistics.median(c.wall for c in ours) / costs[by][0].wall:.2f}"


if __name__ == "__main__":
    sys.exit(main())
