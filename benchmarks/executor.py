"""Measure the executor alone: graphs of 10 to 10,000 stages that do nothing, with the journal of a real run.

    .venv/bin/python benchmarks/executor.py

Each stage takes the output of one or two stages of the layer before its own; a layer has 100 stages, so that much can
run at once. The journal and the events are written to files in a temporary folder, as in a build. The memory is that of
a process which runs one graph, above a process that runs the smallest.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # last: an installed wheel comes first

from endpoint import table  # noqa: E402

from imagepipe.clock import SystemClock  # noqa: E402
from imagepipe.engine.cancel import Cancel  # noqa: E402
from imagepipe.engine.events import Events  # noqa: E402
from imagepipe.engine.executor import RunServices, execute  # noqa: E402
from imagepipe.engine.file_store import FileStore  # noqa: E402
from imagepipe.engine.graph import Graph  # noqa: E402
from imagepipe.engine.journal import Journal, RunRecord  # noqa: E402
from imagepipe.engine.stage import Context, Ref, Stage  # noqa: E402
from imagepipe.masking import Masker  # noqa: E402

SIZES = (10, 100, 1_000, 10_000)
WIDTH = 100
MOST_SECONDS = 2.0
MOST_GROWTH = 12.0
"""Memory of ten times the stages, as a multiple: 10 is linear, and an allocator adds a little."""


@dataclass(frozen=True)
class Count(Stage[int]):
    """Adds one to the greatest of its inputs."""

    before: tuple[Ref[int], ...] = ()

    def run(self, ctx: Context) -> int:
        return 1 + max((ctx[ref] for ref in self.before), default=0)


def main() -> int:
    parser = argparse.ArgumentParser(description="measures the executor alone")
    parser.add_argument("--runs", type=int, default=3, help="runs of each size (3)")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.one:
        seconds = _run(words.one)
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return 0
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}; the median of {words.runs} runs")
    walls, sizes = dict[int, float](), dict[int, float]()
    for stages in SIZES:
        found = [_measure(stages) for _ in range(words.runs)]
        walls[stages] = statistics.median(wall for wall, _ in found)
        sizes[stages] = statistics.median(kilobytes for _, kilobytes in found) / 1024
    most = SIZES[-1]
    growth = (sizes[most] - sizes[SIZES[0]]) / (sizes[most // 10] - sizes[SIZES[0]])
    rows = [("stages", "wall", "a stage", "memory", "target")]
    for stages in SIZES:
        each = f"{walls[stages] / stages * 1e6:.0f} µs"
        goal = f"wall {walls[stages]:.2f} (under {MOST_SECONDS})" if stages == most else "for comparison"
        rows.append((f"{stages:,}", f"{walls[stages]:.3f} s", each, f"{sizes[stages]:.0f} MB", goal))
    table(rows)
    print(f"memory above {SIZES[0]} stages: {growth:.1f} times that of a tenth (at most {MOST_GROWTH:g})")
    is_good = walls[most] < MOST_SECONDS and growth <= MOST_GROWTH
    print("within its targets" if is_good else "NOT within its targets")
    return 0 if is_good else 1


def _measure(stages: int) -> tuple[float, float]:
    """Return the seconds, and the largest resident set in KiB, of a process that runs such a graph."""
    command = [sys.executable, __file__, "--one", str(stages)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    wall, kilobytes = map(float, out.split())
    return wall, kilobytes


def _run(stages: int) -> float:
    graph = _graph(stages)
    with tempfile.TemporaryDirectory() as folder:
        clock = SystemClock()
        run = RunRecord("bench", "2026-01-01T00:00:00Z", ("bench",), {"id": "bench"}, {})
        journal = Journal.create(FileStore(Path(folder)), run, clock)
        with journal.event_sink() as sink:
            events = Events(run.id, clock, Masker(()), [sink])
            began = time.perf_counter()
            outcome = execute(graph, RunServices(journal, events, Cancel(clock), clock, {}))
            seconds = time.perf_counter() - began
        journal.close()
    assert outcome.ok
    assert len(outcome.outputs) == stages
    return seconds


def _graph(stages: int) -> Graph:
    graph = Graph()
    layer: list[Ref[int]] = []
    while len(graph.stages) < stages:
        layer = [_add(graph, layer, place) for place in range(min(WIDTH, stages - len(graph.stages)))]
    return graph


def _add(graph: Graph, above: list[Ref[int]], place: int) -> Ref[int]:
    inputs = {above[place].stage: above[place], above[place // 2].stage: above[place // 2]} if above else {}
    return graph.add(f"stage-{len(graph.stages)}", Count(tuple(inputs.values())))


if __name__ == "__main__":
    sys.exit(main())
