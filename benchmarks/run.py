"""Run benchmarks one after the other, and write a report: Markdown with machine and versions, and a plot of the goals.

    make bench                                   all of them, on an installed wheel
    make bench BENCHMARKS='validate family'      some of them
    make bench-smoke                             a short run of the quick ones, to see that they work

Exit code 1 if a figure misses its goal; all of them run nevertheless.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BENCHMARKS = [
    *("validate", "transfer", "bundle", "agent", "gateway", "describe", "prune", "family", "publish"),
    *("startup", "executor", "instant", "many", "steps", "waits", "build", "bake", "shared_state"),
]
SMOKE: dict[str, tuple[str, ...]] = {"validate": ("--runs", "1"), "describe": ()}
"""The quick ones, with arguments for a short run."""
LIBRARIES = ("imagepipe-ami", "botocore", "paramiko", "pydantic", "cryptography", "moto")
GOAL = re.compile(r"(at most|under|at least) ([\d.,]+)")
NUMBER = re.compile(r"\d[\d,]*\.?\d*")


@dataclass(frozen=True)
class Figure:
    """A figure with a goal."""

    benchmark: str
    what: str
    value: float
    goal: float
    is_upper: bool
    """True if the figure may be at most the goal; False if it must be at least that."""

    @property
    def share(self) -> float:
        """The figure as a share of its goal: up to 1 is within it."""
        return self.value / self.goal if self.is_upper else self.goal / self.value


@dataclass
class Result:
    """The output of one benchmark."""

    name: str
    output: str
    seconds: float
    code: int
    figures: list[Figure] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description="runs benchmarks, and writes a report")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"benchmarks to run (all: {' '.join(BENCHMARKS)})")
    parser.add_argument("--smoke", action="store_true", help="a short run of the quick ones")
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for the report (bench)")
    words = parser.parse_args()
    if unknown := set(words.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    names = words.names or (list(SMOKE) if words.smoke else BENCHMARKS)
    words.out.mkdir(parents=True, exist_ok=True)
    results = []
    for name in names:
        results.append(_run(name, SMOKE.get(name, ()) if words.smoke else ()))
        _write(words.out, results)  # after each, so that an interrupted run leaves a report
    missed = [result.name for result in results if result.code]
    print(f"report: {words.out / 'report.md'}")
    if missed:
        print(f"not within their goals: {' '.join(missed)}")
    return 1 if missed else 0


def _run(name: str, options: Sequence[str]) -> Result:
    """Run one benchmark, and show its output while it runs."""
    print(f"== {name}", flush=True)
    began, lines = time.monotonic(), list[str]()
    with subprocess.Popen(
        [sys.executable, str(FOLDER / f"{name}.py"), *options], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    result = Result(name, "".join(lines), time.monotonic() - began, process.returncode)
    result.figures = list(figures_of(name, lines))
    return result


def figures_of(name: str, lines: Sequence[str]) -> Iterator[Figure]:
    """Yield the figures with goals in the tables of a benchmark's output."""
    for line in lines:
        if not line.startswith("|"):
            continue
        cells = [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")]
        for place, cell in enumerate(cells):
            begin = 0
            for goal in GOAL.finditer(cell):
                here = NUMBER.findall(cell[begin : goal.start()])
                before = [number for other in cells[1:place] for number in NUMBER.findall(other)[:1]]
                begin = goal.end()
                if value := (here or before)[-1:]:
                    yield Figure(name, cells[0], _number(value[0]), _number(goal[2]), goal[1] != "at least")


def _number(text: str) -> float:
    return float(text.replace(",", "").rstrip("."))


def _write(folder: Path, results: Sequence[Result]) -> None:
    """Write report.md, results.json and, if matplotlib is installed, goals.png."""
    (folder / "results.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    has_plot = plot(folder / "goals.png", [figure for result in results for figure in result.figures])
    parts = ["# Benchmarks", "", *machine(), ""]
    if has_plot:
        parts += ["![Every figure as a share of its goal](goals.png)", ""]
    for result in results:
        state = "within its goals" if result.code == 0 else "**not within its goals**"
        parts += [f"## {result.name}", "", f"{result.seconds:.0f} s, {state}.", "", result.output.rstrip(), ""]
    (folder / "report.md").write_text("\n".join(parts))


def machine() -> list[str]:
    """Return lines that name the machine and the versions."""
    packer = shutil.which("packer")
    rival = subprocess.run([packer, "version"], capture_output=True, text=True, check=False).stdout if packer else ""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    model = next((line.partition(":")[2].strip() for line in _cpu() if line.startswith("model name")), "unknown CPU")
    return [
        f"- {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {os.cpu_count()} x {model}, {memory:.0f} GiB,"
        f" Linux {platform.release()}, load {os.getloadavg()[0]:.1f} at the end",
        f"- Python {platform.python_version()}; " + ", ".join(f"{name} {_version(name)}" for name in LIBRARIES),
        f"- {rival.splitlines()[0] if rival else 'no packer'}",
    ]


def _cpu() -> list[str]:
    return Path("/proc/cpuinfo").read_text().splitlines()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def plot(path: Path, figures: Sequence[Figure]) -> bool:
    """Draw each figure as a share of its goal; return False if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    if not figures:
        return False
    drawing, axes = pyplot.subplots(figsize=(9, 1.2 + 0.32 * len(figures)), layout="constrained")
    names = [f"{figure.benchmark}: {figure.what}"[:70] for figure in figures]
    colours = ["#2e7d32" if figure.share <= 1 else "#c62828" for figure in figures]
    places = range(len(figures))
    axes.barh(places, [min(figure.share, 3.0) for figure in figures], color=colours)
    for place, figure in enumerate(figures):
        axes.text(min(figure.share, 3.0) + 0.03, place, f"{figure.value:g} of {figure.goal:g}", va="center", fontsize=7)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(places, names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, 3.4)
    axes.set_xlabel("share of the goal: up to 1 is within it")
    drawing.savefig(path, dpi=120)
    pyplot.close(drawing)
    return True


if __name__ == "__main__":
    sys.exit(main())
