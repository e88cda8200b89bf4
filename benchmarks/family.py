"""Time families of images: a bake against its critical path, an unchanged build, and plan and why for 200 specs.

    .venv/bin/python benchmarks/family.py

As root. Machines consist of an sshd, so nothing boots; each spec has a step of five seconds, as installing takes. The
critical path is the longest chain of stages of the same run, by their own durations. The cloud counts the calls.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from endpoint import COMMAND, Endpoint, arguments, cloud, table

WALL, UNCHANGED_SECONDS, MANY_SECONDS = 1.10, 1.5, 5.0
MANY = 200
STEP_SECONDS = 5
BASE = """\
imagepipe: 1
name: {name}
source: {source}
launch: {{region: us-east-1, ssh: {{user: admin}}}}
provision: [{{shell: "sleep {seconds}"}}]
output: {{name: "{name}-{{{{ build.id }}}}"}}
reuse: unchanged
"""
DEBIAN = '{ami: {name: "debian-12-amd64-*", owners: ["136693071363"]}}'
FAMILY = {"base": DEBIAN, "runtime": "{image: base}", **{f"app-{n}": "{image: runtime}" for n in range(4)}}
"""Sources of six specs in three layers, by name."""
VARIANTS = """\
imagepipe: 1
name: many
matrix: {{number: [{numbers}]}}
source: {{image: base}}
launch: {{region: us-east-1, ssh: {{user: admin}}}}
provision:
  - {{template: {{src: page.j2, dest: /srv/page}}}}
  - shell: "echo {{{{ matrix.number }}}}"
output: {{name: "many-{{{{ matrix.number }}}}-{{{{ build.id }}}}"}}
publish: {{regions: [us-west-2]}}
"""


def main() -> int:
    runs = arguments("times families of images", 3).runs
    rows: list[tuple[str, ...]] = [("what", "measured", "target")]
    with cloud(driver="sshd") as end:
        folder = _write(end.folder / "family", seconds=STEP_SECONDS)
        ratio = statistics.median(_overhead(end, folder) for _ in range(runs))
        rows.append(
            (f"{len(FAMILY)} specs in three layers: wall time / critical path", f"{ratio:.2f}", f"at most {WALL}")
        )
        costs = [_unchanged(end, folder) for _ in range(max(5, runs))]
        seconds = statistics.median(wall for wall, _ in costs)
        changing = max(count for _, count in costs)
        rows.append((f"the same {len(FAMILY)} specs, unchanged", f"{seconds:.2f} s", f"under {UNCHANGED_SECONDS} s"))
        rows.append(("calls that change anything in that build", str(changing), "0"))
        many = _many(end)
        slowest = 0.0
        for words in (["plan"], ["why"], ["why", "--offline"]):
            taken = statistics.median(_seconds(end, [*words[:1], str(many), *words[1:]]) for _ in range(runs))
            slowest = max(slowest, taken)
            rows.append((f"`{' '.join(words)}` for {MANY} specs", f"{taken:.2f} s", f"under {MANY_SECONDS:.0f} s"))
    table(rows)
    is_good = ratio <= WALL and seconds < UNCHANGED_SECONDS and not changing and slowest < MANY_SECONDS
    print("all within their targets" if is_good else "NOT within the targets")
    return 0 if is_good else 1


def _write(folder: Path, *, seconds: int) -> Path:
    folder.mkdir()
    for name, source in FAMILY.items():
        (folder / f"{name}.yaml").write_text(BASE.format(name=name, source=source, seconds=seconds))
    return folder


def _overhead(end: Endpoint, folder: Path) -> float:
    """Bake the family; return its wall time as a multiple of its critical path."""
    end.run([*end.imagepipe(folder), "--force"])
    run = max((Path(end.env["XDG_STATE_HOME"]) / "imagepipe/runs").iterdir(), key=lambda path: path.stat().st_mtime)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    seconds = {each["stage"]: each["seconds"] for each in events if each["event"] == "StageFinished"}
    wall = next(each["seconds"] for each in events if each["event"] == "RunFinished")
    return float(wall) / max(_chain_lengths(folder, seconds))


def _chain_lengths(folder: Path, seconds: Mapping[str, float]) -> Iterator[float]:
    """Yield the longest chain of stages of each layered path, by the durations of the run."""
    from imagepipe.cli.graph import unrun_graph
    from imagepipe.spec.load import SAMPLE_BUILD, load
    from imagepipe.spec.variables import Given

    graph = unrun_graph(load(sorted(folder.glob("*.yaml")), Given(), build=SAMPLE_BUILD), None, scans_disks=True).graph
    total: dict[str, float] = {}
    for name in graph.order():
        total[name] = seconds.get(name, 0.0) + max((total[each] for each in graph.needs(name)), default=0.0)
        yield total[name]


def _unchanged(end: Endpoint, folder: Path) -> tuple[float, int]:
    """Build again; return wall seconds, and the number of calls that change anything."""
    cost = end.run(end.imagepipe(folder))
    calls: dict[str, Any] = end.admin("GET", "calls")
    reads = ("Describe", "Get", "List", "Head")
    return cost.wall, sum(n for name, n in calls.items() if not name.rpartition(":")[2].startswith(reads))


def _many(end: Endpoint) -> Path:
    folder = end.folder / "many"
    folder.mkdir()
    (folder / "page.j2").write_text("{{ matrix.number }}\n")
    numbers = ", ".join(str(number) for number in range(MANY - 1))
    (folder / "many.yaml").write_text(VARIANTS.format(numbers=numbers))
    (folder / "base.yaml").write_text(BASE.format(name="base", source=DEBIAN, seconds=0))
    return folder


def _seconds(end: Endpoint, words: list[str]) -> float:
    return end.run([*COMMAND, *words, "--endpoint-url", end.url]).wall


if __name__ == "__main__":
    raise SystemExit(main())
