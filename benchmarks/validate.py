"""Time `imagepipe validate` against Debian's `packer validate`, and 500 specs in one call.

    .venv/bin/python benchmarks/validate.py

Runs alternate, and the ratio is taken pair by pair, so that other work on the machine affects both. Neither has
a daemon or a cache: each run is a new process that reads everything again.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGEPIPE = Path(sys.executable).with_name("imagepipe")
SPEC = ROOT / "specs" / "web-server.yaml"
TEMPLATES = {
    "the same build": ROOT / "benchmarks" / "packer" / "web-server.json",
    "no steps": ROOT / "benchmarks" / "packer" / "no-steps.json",
}
"""Packer starts a process for each step, so the sample costs it twice as much as a template without steps."""
MOST_RATIO = 0.8
MANY = 500
MOST_SECONDS = 4.0


def main() -> int:
    parser = argparse.ArgumentParser(description="times imagepipe validate against packer validate")
    parser.add_argument("--runs", type=int, default=15, help="alternating runs of each (15)")
    runs = parser.parse_args().runs
    if not (packer := shutil.which("packer")):
        print("there is no packer on this machine: apt-get install packer", file=sys.stderr)
        return 2
    print(f"{_machine()}; {_first_line([packer, 'version'])}; {_first_line([str(IMAGEPIPE), '--version'])}")
    is_good = True
    rows: list[tuple[str, ...]] = [("", "imagepipe", "packer", "ratio, median of pairs", "target")]
    for title, template in TEMPLATES.items():
        ours, theirs, ratio = _pairs([str(IMAGEPIPE), "validate", str(SPEC)], [packer, "validate", str(template)], runs)
        is_target = title == "the same build"
        is_good &= ratio <= MOST_RATIO or not is_target
        target = f"at most {MOST_RATIO}" if is_target else "for comparison"
        rows.append((f"one spec; {title}", f"{ours:.3f} s", f"{theirs:.3f} s", f"{ratio:.2f}", target))
    seconds, count = _many()
    is_good &= seconds <= MOST_SECONDS
    rows.append((f"{count} specs, one call", f"{seconds:.2f} s", "", "", f"under {MOST_SECONDS:g} s"))
    _print_table(rows)
    print("all within their targets" if is_good else "NOT within the targets")
    return 0 if is_good else 1


def _pairs(ours: list[str], theirs: list[str], runs: int) -> tuple[float, float, float]:
    _seconds(ours)
    _seconds(theirs)  # both from a warm page cache
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(runs)]
    return (
        statistics.median(mine for mine, _ in pairs),
        statistics.median(other for _, other in pairs),
        statistics.median(mine / other for mine, other in pairs),
    )


def _many() -> tuple[float, int]:
    """Validate the sample 500 times in one call, each under another name in a file of its own."""
    text = SPEC.read_text(encoding="utf-8").replace("../provisioners", str(ROOT / "provisioners"))
    with tempfile.TemporaryDirectory() as folder:
        specs = Path(folder) / "specs"
        specs.mkdir()
        for number in range(MANY):
            named = text.replace("name: web-server\n", f"name: web-server-{number}\n", 1)
            (specs / f"{number}.yaml").write_text(named, encoding="utf-8")
        return statistics.median(_seconds([str(IMAGEPIPE), "validate", str(specs)]) for _ in range(3)), MANY


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL, check=True, timeout=120)
    return time.perf_counter() - started


def _environment() -> dict[str, str]:
    return {**os.environ, "CHECKPOINT_DISABLE": "1"}  # packer would ask its maker for news


def _first_line(command: list[str]) -> str:
    said = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=True, timeout=30).stdout
    return said.splitlines()[0]


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _print_table(rows: list[tuple[str, ...]]) -> None:
    head, *body = rows
    for row in (head, tuple("---" for _ in head), *body):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    sys.exit(main())
